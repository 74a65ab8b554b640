package wire

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/pem"
	"fmt"
)

// ScrambleNative answers mysql_native_password's challenge:
// SHA1(pw) XOR SHA1(salt, SHA1(SHA1(pw))). Empty for an empty password.
func ScrambleNative(salt, password []byte) []byte {
	if len(password) == 0 {
		return nil
	}
	h1 := sha1.Sum(password)
	h2 := sha1.Sum(h1[:])
	h := sha1.New()
	h.Write(salt)
	h.Write(h2[:])
	out := h.Sum(nil)
	subtle.XORBytes(out, out, h1[:])
	return out
}

// ScrambleSHA256 answers caching_sha2_password's fast challenge:
// SHA256(pw) XOR SHA256(SHA256(SHA256(pw)), salt). Empty for an empty password.
func ScrambleSHA256(salt, password []byte) []byte {
	if len(password) == 0 {
		return nil
	}
	return ScrambleSHA256Hash(salt, sha256.Sum256(password))
}

// ScrambleSHA256Hash is [ScrambleSHA256] for one who knows only SHA256(pw).
func ScrambleSHA256Hash(salt []byte, h1 [32]byte) []byte {
	pad := sha256Pad(salt, sha256.Sum256(h1[:]))
	out := make([]byte, 32)
	subtle.XORBytes(out, pad[:], h1[:])
	return out
}

func sha256Pad(salt []byte, h2 [32]byte) (pad [32]byte) {
	h := sha256.New()
	h.Write(h2[:])
	h.Write(salt)
	h.Sum(pad[:0])
	return pad
}

// RecoverSHA256 takes SHA256(pw) out of a fast scramble with the help of
// SHA256(SHA256(pw)); false if the scramble is of another password.
func RecoverSHA256(scramble, salt []byte, h2 [32]byte) (h1 [32]byte, ok bool) {
	if len(scramble) != 32 {
		return h1, false
	}
	pad := sha256Pad(salt, h2)
	subtle.XORBytes(h1[:], pad[:], scramble)
	return h1, sha256.Sum256(h1[:]) == h2
}

// EncryptPassword encrypts a password for a server's RSA key as
// caching_sha2_password and sha256_password do over an open connection.
func EncryptPassword(password, salt []byte, key *rsa.PublicKey) ([]byte, error) {
	if len(salt) == 0 {
		return nil, malformed("no salt")
	}
	plain := append(append(make([]byte, 0, len(password)+1), password...), 0)
	for i := range plain {
		plain[i] ^= salt[i%len(salt)]
	}
	out, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, key, plain, nil)
	if err != nil {
		return nil, fmt.Errorf("encrypt password: %w", err)
	}
	return out, nil
}

// DecryptPassword is the server's side of [EncryptPassword].
func DecryptPassword(cipher, salt []byte, key *rsa.PrivateKey) ([]byte, error) {
	if len(salt) == 0 {
		return nil, malformed("no salt")
	}
	plain, err := rsa.DecryptOAEP(sha1.New(), nil, key, cipher, nil)
	if err != nil {
		return nil, fmt.Errorf("decrypt password: %w", err)
	}
	for i := range plain {
		plain[i] ^= salt[i%len(salt)]
	}
	if n := len(plain); n > 0 && plain[n-1] == 0 {
		plain = plain[:n-1]
	}
	return plain, nil
}

// ParsePublicKey reads a server's RSA key (PEM, PKIX).
func ParsePublicKey(data []byte) (*rsa.PublicKey, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, malformed("public key is not PEM")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: public key: %w", ErrMalformed, err)
	}
	if k, ok := key.(*rsa.PublicKey); ok {
		return k, nil
	}
	return nil, malformed("public key is not RSA")
}

// EncodePublicKey writes key as [ParsePublicKey] reads it.
func EncodePublicKey(key *rsa.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}
