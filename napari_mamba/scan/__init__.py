"""The core: scan orders, the selective-scan operator and the causal convolution, and their backends."""

from napari_mamba.scan import orders_hilbert, orders_survey  # noqa: F401  (they register their orders)
from napari_mamba.scan.arguments import LowRank
from napari_mamba.scan.listening import Call, listen, placed
from napari_mamba.scan.operator import causal_conv1d, selective_scan, warm_up
from napari_mamba.scan.orders import ScanOrder, list_orders, scan_order
from napari_mamba.scan.registry import available_backends, backend_on

__all__ = [
    "Call",
    "LowRank",
    "ScanOrder",
    "available_backends",
    "backend_on",
    "causal_conv1d",
    "list_orders",
    "listen",
    "placed",
    "scan_order",
    "selective_scan",
    "warm_up",
]
