"""DPO's 3D-properties, simulated."""
