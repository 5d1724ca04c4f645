"""The truth: showers from Geant4, through the package geant4-pybind."""
