"""Ratios of what keycustody costs against what any solution must, in one run (`make bench`)."""
