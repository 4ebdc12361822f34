"""SoftHSM 2.6: everything that keycustody needs, in software.

Run on SoftHSM 2.6.1 (Debian 12) with python-pkcs11: every key was made with the full template of
`keycustody.token.attributes`, shows all of it, and did its operations; a mechanism outside
CKA_ALLOWED_MECHANISMS, a change and a copy were refused. OAEP takes SHA-1 only, and no label.
"""

from keycustody.algorithms import Scheme
from keycustody.token.profiles import Profile

PROFILE = Profile(
    name="softhsm2",
    description="SoftHSM 2.6, a token in software: for tests, CI and development",
    keys=frozenset(
        {
            "EC_P256",
            "EC_P384",
            "ED25519",
            "RSA_2048",
            "RSA_3072",
            "RSA_4096",
            "AES_256_HMAC_SHA_256",
        }
    ),
    schemes={
        Scheme.ECDSA: "ECDSA",
        Scheme.EDDSA: "EDDSA",
        Scheme.RSA_PSS: "RSA_PKCS_PSS",
        Scheme.RSA_PKCS1: "RSA_PKCS",
    },
    oaep="RSA_PKCS_OAEP",
    decryptions=frozenset({"RSA_OAEP_SHA_1"}),
    agree="ECDH1_DERIVE",
    wrap="AES_KEY_WRAP",
    mac="SHA256_HMAC",
    seal="AES_ECB_ENCRYPT_DATA",
    shows_wrong_pins=True,
    weaker=(
        (
            "The keys are in files and in the memory of the processes that use them: whoever "
            "reads either has them. It is no hardware."
        ),
        "A wrong PIN can be tried any number of times: the token never locks.",
    ),
)
