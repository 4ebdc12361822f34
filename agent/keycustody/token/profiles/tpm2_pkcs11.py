"""tpm2-pkcs11: keys in the machine's TPM 2.0.

Run on tpm2-pkcs11 1.9.0 (Debian 12) with swtpm 0.7.1 behind tpm2-abrmd 3.0.0, not on a hardware
TPM. P-256 and P-384 signed; RSA-2048 decrypted (OAEP with SHA-1 and SHA-256); private data objects
were written and read. CKA_ALLOWED_MECHANISMS is kept and enforced on these keys.

RSA signatures are left out on purpose: the module makes them with the TPM's raw RSA decryption, so
a signing key would have to be a decryption key as well, and could not be limited to its mechanisms
(with CKA_DECRYPT False or with a list, every RSA signature failed). RSA-3072 was made, and not
used; RSA-4096 is refused. There is no ECDH, no AES key wrap and no HMAC key generation.
On public keys the module sets ENCRYPT and VERIFY by itself, and fails if the template names them.
"""

from keycustody.algorithms import Scheme
from keycustody.token.profiles import Profile

PROFILE = Profile(
    name="tpm2_pkcs11",
    description="tpm2-pkcs11 1.9: EC signatures and RSA decryption in the machine's TPM",
    keys=frozenset({"EC_P256", "EC_P384", "RSA_2048"}),
    schemes={Scheme.ECDSA: "ECDSA"},
    oaep="RSA_PKCS_OAEP",
    decryptions=frozenset({"RSA_OAEP_SHA_1", "RSA_OAEP_SHA_256"}),
    # A TPM takes up to a second for one operation, and loading a key is some of them.
    attempt_seconds=10.0,
    unknown_public_attributes=frozenset({"ENCRYPT", "VERIFY"}),
    weaker=(
        (
            "MODIFIABLE, COPYABLE and DESTROYABLE are stored and shown, and not enforced: whoever "
            "has the PIN can relabel a key, and change or destroy its state records."
        ),
        (
            "Attributes and state records are rows of an SQLite file: whoever can write the store "
            "can change them. The private keys themselves cannot leave the TPM."
        ),
    ),
)
