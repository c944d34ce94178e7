"""CT volumes of several hospitals: reading, phantoms, batches, networks, losses, metrics, prediction.

MONAI's networks, losses, metrics and sliding windows; nibabel and pydicom for files.
"""

from __future__ import annotations

from pppml_fast.imaging.batches import SliceBatches
from pppml_fast.imaging.cases import Case, PartyData
from pppml_fast.imaging.datalist import load_case, load_datalist, load_volume, read_datalist, write_datalist
from pppml_fast.imaging.dicom import read_dicom_folder
from pppml_fast.imaging.find import FoundData, find_data, load_data
from pppml_fast.imaging.inference import evaluate, predict_case, predict_probabilities, predict_volume
from pppml_fast.imaging.losses import segmentation_loss
from pppml_fast.imaging.metrics import dice, lung_dice
from pppml_fast.imaging.network import NetworkSpec, build_network, count_weights, fast_unet, unet
from pppml_fast.imaging.nifti import Volume, read_nifti, write_mask
from pppml_fast.imaging.npz import COVID_CT_SEG, NpzMapping, load_npz
from pppml_fast.imaging.phantom_scans import (
    DEFAULT_CLIENTS,
    Scan,
    ScanClient,
    infection_label,
    infection_ratio,
    lung_box_volume,
    make_scans,
)
from pppml_fast.imaging.phantoms import DEFAULT_HOSPITALS, PhantomHospital, make_case, make_phantoms
from pppml_fast.imaging.releases import list_covid_ct_seg, list_rad_chestct, write_datalists
from pppml_fast.imaging.transforms import (
    LUNG_WINDOW,
    Preprocessing,
    apply_window,
    resize_slices,
    simulate_thickness,
    unit_range,
)

__all__ = [
    "COVID_CT_SEG",
    "DEFAULT_CLIENTS",
    "DEFAULT_HOSPITALS",
    "LUNG_WINDOW",
    "Case",
    "FoundData",
    "NetworkSpec",
    "NpzMapping",
    "PartyData",
    "PhantomHospital",
    "Preprocessing",
    "Scan",
    "ScanClient",
    "SliceBatches",
    "Volume",
    "apply_window",
    "build_network",
    "count_weights",
    "dice",
    "evaluate",
    "fast_unet",
    "find_data",
    "infection_label",
    "infection_ratio",
    "list_covid_ct_seg",
    "list_rad_chestct",
    "load_case",
    "load_data",
    "load_datalist",
    "load_npz",
    "load_volume",
    "lung_box_volume",
    "lung_dice",
    "make_case",
    "make_phantoms",
    "make_scans",
    "predict_case",
    "predict_probabilities",
    "predict_volume",
    "read_datalist",
    "read_dicom_folder",
    "read_nifti",
    "resize_slices",
    "segmentation_loss",
    "simulate_thickness",
    "unet",
    "unit_range",
    "write_datalist",
    "write_datalists",
    "write_mask",
]
