"""The token side: what custody may ask of a token (`api`), and the worker processes that do it.

`api` and `attributes` know neither PKCS#11 bindings nor processes; `pool` supervises workers;
`worker` is the child's main; `hsm` is the only place that imports `pkcs11`.
"""
