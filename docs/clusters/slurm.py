"""A Dask cluster on SLURM for napari-mamba: one worker a GPU. Run it on the login node, or in a small job of its own.

    pip install dask-jobqueue "napari-mamba[dask]"
    python slurm.py --jobs 8 --partition gpu

It prints the address for --scheduler, and keeps the workers until it is ended.
"""

import argparse
import time


def job(**how):
    """One SLURM job: a GPU, its share of cores and memory, and one worker of one thread in it."""
    cores = how.get("cores", 8)
    return {
        "queue": how.get("partition", "gpu"),
        "walltime": how.get("walltime", "04:00:00"),
        "cores": 1,  # threads of the worker: one network a process
        "processes": 1,
        "job_cpu": cores,
        "memory": how.get("memory", "32GB"),
        "job_extra_directives": ["--gres=gpu:1"],
        "job_script_prologue": [f"export OMP_NUM_THREADS={cores}"],
        # ends in time to hand its blocks back, and starts anew while there is work
        "worker_extra_args": ["--lifetime", "220m", "--lifetime-stagger", "4m"],
    }


def main():
    """Start the scheduler and ask SLURM for workers."""
    from dask_jobqueue import SLURMCluster

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--partition", default="gpu")
    parser.add_argument("--walltime", default="04:00:00")
    arguments = parser.parse_args()
    cluster = SLURMCluster(**job(partition=arguments.partition, walltime=arguments.walltime))
    cluster.adapt(minimum_jobs=1, maximum_jobs=arguments.jobs)
    print(f"napari-mamba run ... --scheduler {cluster.scheduler_address}", flush=True)
    print(f"dashboard: {cluster.dashboard_link}", flush=True)
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main()
