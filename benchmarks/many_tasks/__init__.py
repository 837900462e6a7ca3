"""Many tasks of one form: a bank beside a program by hand, single entries, TorchJD, LibMTL and scikit-learn."""
