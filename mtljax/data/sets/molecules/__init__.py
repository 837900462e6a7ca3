"""Data sets of molecules, Tox21 and SIDER, with fingerprints as inputs."""
