"""opencryptoki's software token: RSA only in Debian's build, and a PIN that really locks.

Run on opencryptoki 3.8.1 (Debian 12), slot libpkcs11_sw.so: RSA 2048, 3072 and 4096 signed (PSS and
PKCS #1 v1.5, verified) and decrypted (OAEP with SHA-1 and SHA-256); private, unmodifiable data
objects work. There is no EC mechanism, no AES key wrap and no derivation in that build.
COPYABLE, DESTROYABLE and ALLOWED_MECHANISMS are `CKR_ATTRIBUTE_TYPE_INVALID`.
"""

from keycustody.algorithms import Scheme
from keycustody.token.profiles import Profile

PROFILE = Profile(
    name="opencryptoki",
    description="opencryptoki 3.8, software token: RSA signatures and decryption",
    keys=frozenset({"RSA_2048", "RSA_3072", "RSA_4096"}),
    schemes={Scheme.RSA_PSS: "RSA_PKCS_PSS", Scheme.RSA_PKCS1: "RSA_PKCS"},
    oaep="RSA_PKCS_OAEP",
    decryptions=frozenset({"RSA_OAEP_SHA_1", "RSA_OAEP_SHA_256"}),
    mac="SHA256_HMAC",
    unknown_attributes=frozenset({"ALLOWED_MECHANISMS", "COPYABLE", "DESTROYABLE"}),
    weaker=(
        "Keys are not limited to mechanisms: a PIN holder can do raw RSA with any RSA key.",
        "Keys can be copied, and data objects destroyed, by whoever has the PIN.",
        "PINs are 4 to 8 characters.",
        "It signs with RSA only, so audit heads are not signed.",
        "The keys are in files, and in the memory of the processes that use them.",
    ),
)
