"""`python -m keycustody.cli` is `keycustody`."""

from keycustody.cli import main

main()
