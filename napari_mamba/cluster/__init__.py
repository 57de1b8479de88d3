"""Blocks and cases on many processes by Dask: of this machine, or of a cluster whose scheduler is named.

Dask itself is imported where a cluster is asked for. Nothing here schedules: `dask.distributed` does.
"""

from napari_mamba.cluster.connecting import Cluster, connect
from napari_mamba.cluster.in_memory import Carried, run_on
from napari_mamba.cluster.spreading import SpreadJobs

__all__ = ["Carried", "Cluster", "SpreadJobs", "connect", "run_on"]
