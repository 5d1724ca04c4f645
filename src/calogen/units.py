"""The only units inside calogen: GeV, mm, ns, rad. Conversion happens where files and command lines are read."""

GEV_PER_MEV = 1e-3
MEV_PER_GEV = 1e3
MM_PER_CM = 10.0
KEV_PER_GEV = 1e6
