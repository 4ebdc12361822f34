"""The token itself, through python-pkcs11: only this package imports `pkcs11`.

An `Hsm` serves one single-threaded process, because `pkcs11.lib()` promises the module just that
(`C_Initialize(NULL)`) and does not hold to it when there are threads. Everything raised is of
`keycustody.errors`, with what the module said as its `__cause__`. What a module can do is asked of
its `Profile`, never of its name.

`module` opens, `objects` names attributes, `keys` finds and proves keys, `operations` and
`session_keys` use them, `provisioning` makes and lists them, `failures` translates errors.
"""

from keycustody.token.hsm.hsm import Hsm

__all__ = ["Hsm"]
