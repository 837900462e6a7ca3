"""Molecules and their assays: fingerprints, Tox21 and SIDER."""
