package notification

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"time"

	"steno/shared/rawjson"
)

// ErrContent says that encrypted content was refused. It is the same for every cause, so
// that nobody learns from answers which step failed.
var ErrContent = errors.New("encrypted content refused")

// keyBits is the size of the key pairs made here. Graph takes 2,048 to 4,096; every item
// costs one operation with the private key, which takes three times as long with 3,072.
const keyBits = 2048

// PrivateKey opens what Graph encrypted under its certificate. It prints as nothing.
type PrivateKey struct{ key *rsa.PrivateKey }

// Format implements fmt.Formatter.
func (PrivateKey) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "private key") }

// LogValue implements slog.LogValuer.
func (PrivateKey) LogValue() slog.Value { return slog.StringValue("private key") }

// MarshalJSON refuses: a key is never part of a document.
func (PrivateKey) MarshalJSON() ([]byte, error) {
	return nil, errors.New("a private key is not written as JSON")
}

// NewKeyPair makes a key pair and a self-signed certificate for it.
func NewKeyPair(id string, now time.Time) (PrivateKey, Certificate, error) {
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return PrivateKey{}, Certificate{}, fmt.Errorf("make notification key: %w", err)
	}
	serial := make([]byte, 16)
	_, _ = rand.Read(serial) // never fails since Go 1.24
	template := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial), Subject: pkix.Name{CommonName: "steno-notifications-" + id},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(2, 0, 0), KeyUsage: x509.KeyUsageKeyEncipherment,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return PrivateKey{}, Certificate{}, fmt.Errorf("make notification certificate: %w", err)
	}
	return PrivateKey{key}, Certificate{ID: id, DER: der, Made: now.UTC()}, nil
}

// Seal is how the key is written where it is kept: PKCS #8, for nobody but the store that
// encrypts it.
func (k PrivateKey) Seal() ([]byte, error) {
	b, err := x509.MarshalPKCS8PrivateKey(k.key)
	if err != nil {
		return nil, errors.New("write notification key: not a key")
	}
	return b, nil
}

// ParsePrivateKey reads what Seal wrote.
func ParsePrivateKey(b []byte) (PrivateKey, error) {
	key, err := x509.ParsePKCS8PrivateKey(b)
	k, ok := key.(*rsa.PrivateKey)
	if err != nil || !ok {
		return PrivateKey{}, errors.New("read notification key: not an RSA key in PKCS #8")
	}
	return PrivateKey{k}, nil
}

// Content is encryptedContent of a notification.
// https://learn.microsoft.com/graph/api/resources/changenotificationencryptedcontent
type Content struct {
	Data, Signature, Key string // base64, as sent
	Certificate          string // encryptionCertificateId
}

// MaxContent bounds the ciphertext of one item, in bytes of base64.
const MaxContent = 4 << 20

// readContent reads encryptedContent, each name at most once.
func readContent(raw []byte) (c Content, err error) {
	f := fields{"data": &c.Data, "dataSignature": &c.Signature, "dataKey": &c.Key, "encryptionCertificateId": &c.Certificate}
	err = f.read(raw)
	return c, err
}

// Open verifies and decrypts. The signature is verified first, over the ciphertext and in
// constant time: nothing is decrypted that Graph did not encrypt.
//
// The key travels under RSAES-OAEP with SHA-1, the data under AES-CBC with PKCS #7, and the
// vector is the key's first half. All of it is Graph's choice.
// https://learn.microsoft.com/graph/change-notifications-with-resource-data#decrypting-resource-data-from-change-notifications
func (k PrivateKey) Open(c Content) ([]byte, error) {
	if k.key == nil || len(c.Data) > MaxContent {
		return nil, ErrContent
	}
	wrapped, err1 := base64.StdEncoding.Strict().DecodeString(c.Key)
	signature, err2 := base64.StdEncoding.Strict().DecodeString(c.Signature)
	data, err3 := base64.StdEncoding.Strict().DecodeString(c.Data)
	if errors.Join(err1, err2, err3) != nil {
		return nil, ErrContent
	}
	key, err := rsa.DecryptOAEP(sha1.New(), nil, k.key, wrapped, nil)
	if err != nil {
		return nil, ErrContent
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(data)
	if !hmac.Equal(mac.Sum(nil), signature) {
		return nil, ErrContent
	}
	return decrypt(key, data)
}

// decrypt opens data whose signature is good.
func decrypt(key, data []byte) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil || len(data) == 0 || len(data)%aes.BlockSize != 0 {
		return nil, ErrContent
	}
	cipher.NewCBCDecrypter(block, key[:aes.BlockSize]).CryptBlocks(data, data)
	n := int(data[len(data)-1])
	if n == 0 || n > aes.BlockSize {
		return nil, ErrContent
	}
	bad := 0
	for _, b := range data[len(data)-n:] {
		bad |= subtle.ConstantTimeByteEq(b, byte(n)) ^ 1
	}
	if bad != 0 {
		return nil, ErrContent
	}
	return data[:len(data)-n], nil
}

// fields are the texts that are read of an object. A name may stand once, exactly as Graph
// spells it; null reads as the empty text.
type fields map[string]*string

func (f fields) read(raw []byte) error {
	seen := map[string]bool{}
	return rawjson.Members(raw, func(name string, value []byte) error {
		into, wanted := f[name]
		if !wanted {
			return nil
		}
		if seen[name] {
			return rawjson.ErrMalformed
		}
		seen[name] = true
		if rawjson.IsNull(value) {
			return nil
		}
		var ok bool
		if *into, ok = rawjson.String(value); !ok {
			return rawjson.ErrMalformed
		}
		return nil
	})
}
