"""NSS softokn: the key database of Firefox and its relatives. A compatibility target.

Run on NSS 3.87.1 (Debian 12) through p11-kit-proxy 0.24.1, which passes the configuration string
that softokn needs and that python-pkcs11 cannot pass. P-256, P-384, RSA 2048 to 4096 signed (ECDSA,
PSS, PKCS #1 v1.5, verified); OAEP with SHA-1 and SHA-256 and ECDH did their work.

`wrap` keys are left out on purpose: AES key wrap, HMAC and the derivation that seals all work, but
the database holds one secret key for each CKA_ID, so that the HMAC key of a version replaces its
AES key; and `C_WrapKey` exports a key whose CKA_EXTRACTABLE is False.

Also seen: an unknown attribute in a template is `CKR_GENERAL_ERROR`; CKA_LOCAL is False on keys
that softokn itself made; private `CKO_DATA` is refused; a public key made private is found without
a PIN all the same, and CKA_PRIVATE is True or False, depending on whether it is asked for alone.
"""

from keycustody.algorithms import Scheme
from keycustody.token.profiles import Profile

PROFILE = Profile(
    name="nss",
    description="NSS softokn 3.87, a key database in software: for compatibility only",
    keys=frozenset({"EC_P256", "EC_P384", "RSA_2048", "RSA_3072", "RSA_4096"}),
    schemes={
        Scheme.ECDSA: "ECDSA",
        Scheme.RSA_PSS: "RSA_PKCS_PSS",
        Scheme.RSA_PKCS1: "RSA_PKCS",
    },
    oaep="RSA_PKCS_OAEP",
    decryptions=frozenset({"RSA_OAEP_SHA_1", "RSA_OAEP_SHA_256"}),
    agree="ECDH1_DERIVE",
    unknown_attributes=frozenset({"ALLOWED_MECHANISMS", "COPYABLE", "DESTROYABLE", "LOCAL"}),
    data_objects=False,
    weaker=(
        "A key marked as not extractable can be exported with C_WrapKey by whoever has the PIN.",
        "Keys are not limited to mechanisms: a PIN holder can do raw RSA with any RSA key.",
        "The token does not tell keys that it made from imported ones (CKA_LOCAL).",
        "Public keys are shown without a PIN: whoever can write the database can replace them.",
        "Keys can be copied.",
        "There are no data objects, so no state of a key is kept on the token.",
    ),
)
