"""Ratios of what keycustody costs against what any solution must cost, in one run (`make bench`)."""
