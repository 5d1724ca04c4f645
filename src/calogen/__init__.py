"""calogen: train, sample, judge and deploy generative models of calorimeter showers."""

from calogen.data.incident import Incident
from calogen.data.showers import Showers
from calogen.data.voxels import Voxels
from calogen.detector.catalog import CATALOG, ILD, ILD_ECAL, detector
from calogen.detector.geometry import Detector

__version__ = "0.1.0"

__all__ = ["CATALOG", "ILD", "ILD_ECAL", "Detector", "Incident", "Showers", "Voxels", "detector"]
