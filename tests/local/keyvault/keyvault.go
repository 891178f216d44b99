// Package keyvault stands in for the keys of an Azure Key Vault: creating and rotating RSA and P-256 keys, wrapping,
// unwrapping, signing and verifying, behind the vault's bearer challenge.
//
// It is an http.Handler that the real azkeys client accepts over TLS; that client needs
// DisableChallengeResourceVerification, because the vault's address is not under vault.azure.net. There are no
// secrets, certificates, soft delete, backup, import or access policies.
//
// The wire format follows https://learn.microsoft.com/en-us/rest/api/keyvault/keys.
package keyvault

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"
)

// Resource is the audience of the tokens that the vault accepts.
const Resource = "https://vault.azure.net"

// DefaultRSABits is the size of an RSA key whose creation names none.
const DefaultRSABits = 2048

// The operations that are counted and that a fault can be set for.
const (
	OpCreate = "create"
	OpRotate = "rotate"
	OpGet    = "get"
	OpWrap   = "wrapkey"
	OpUnwrap = "unwrapkey"
	OpSign   = "sign"
	OpVerify = "verify"
)

// Config describes the vault.
type Config struct {
	// Authority is named in the challenge, such as https://login.microsoftonline.com/<tenant>.
	Authority string
	// VerifyToken checks a bearer token and returns its claims; its error is answered with 401. Nil accepts every
	// well-formed, unsigned or signed, unexpired token whose audience is Resource.
	VerifyToken func(token string) (claims map[string]any, err error)
	// Path is a file that keeps the keys, so that a vault started again on it can unwrap. Empty keeps them in memory.
	Path string
	// Audit gets a line for each request that the vault answered to somebody it knows, as the real one's log of category
	// AuditEvent has it: https://learn.microsoft.com/azure/key-vault/general/logging. It is called before the answer ends. Nil
	// logs nothing.
	Audit func(at time.Time, line []byte)
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
}

// Vault is the stand-in. It is safe for concurrent use.
type Vault struct {
	cfg Config

	mu     sync.Mutex
	keys   map[string][]*version // oldest first; the last one is current
	counts map[string]int
	faults []fault
	denied map[string]bool // client ids that may not unwrap
}

type version struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	Enabled bool      `json:"enabled"`
	PKCS8   []byte    `json:"pkcs8"`

	rsa *rsa.PrivateKey
	ec  *ecdsa.PrivateKey
}

type fault struct {
	op         string
	left       int
	status     int
	retryAfter int
}

// ErrNoKey is returned for a key or a key version that does not exist.
var ErrNoKey = errors.New("key not found")

var keyName = regexp.MustCompile(`^[0-9A-Za-z-]{1,127}$`)

// New makes a vault, with the keys of cfg.Path if that file exists.
func New(cfg Config) (*Vault, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	v := &Vault{cfg: cfg, keys: map[string][]*version{}, counts: map[string]int{}, denied: map[string]bool{}}
	if cfg.VerifyToken == nil {
		v.cfg.VerifyToken = v.wellFormed
	}
	if cfg.Path == "" {
		return v, nil
	}
	if err := v.load(); err != nil {
		return nil, fmt.Errorf("load keys %s: %w", cfg.Path, err)
	}
	return v, nil
}

func (v *Vault) load() error {
	b, err := os.ReadFile(v.cfg.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &v.keys); err != nil {
		return err
	}
	for name, versions := range v.keys {
		for _, k := range versions {
			parsed, err := x509.ParsePKCS8PrivateKey(k.PKCS8)
			if err != nil {
				return fmt.Errorf("parse key %s: %w", name, err)
			}
			switch p := parsed.(type) {
			case *rsa.PrivateKey:
				k.rsa = p
			case *ecdsa.PrivateKey:
				k.ec = p
			default:
				return fmt.Errorf("parse key %s: %T is not supported", name, parsed)
			}
		}
	}
	return nil
}

// save writes the keys beside their file and moves them over it. The caller holds the lock.
func (v *Vault) save() error {
	if v.cfg.Path == "" {
		return nil
	}
	b, err := json.Marshal(v.keys)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(v.cfg.Path), ".keys-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), v.cfg.Path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// CreateKey makes a new version of the key name, of kind "RSA" (bits 0 means DefaultRSABits) or "EC" (P-256; bits is
// ignored), and returns the version's id. With Config.Path it is on disk when CreateKey returns.
func (v *Vault) CreateKey(name, kind string, bits int) (string, error) {
	if !keyName.MatchString(name) {
		return "", fmt.Errorf("create key %q: name is not valid", name)
	}
	id := make([]byte, 16)
	rand.Read(id)
	k := &version{ID: hex.EncodeToString(id), Created: v.cfg.Now().UTC().Truncate(time.Second), Enabled: true}
	var err error
	switch kind {
	case "RSA":
		if bits == 0 {
			bits = DefaultRSABits
		}
		if bits != 2048 && bits != 3072 && bits != 4096 {
			return "", fmt.Errorf("create key %s: RSA of %d bits is not offered", name, bits)
		}
		if k.rsa, err = rsa.GenerateKey(rand.Reader, bits); err == nil {
			k.PKCS8, err = x509.MarshalPKCS8PrivateKey(k.rsa)
		}
	case "EC":
		if k.ec, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err == nil {
			k.PKCS8, err = x509.MarshalPKCS8PrivateKey(k.ec)
		}
	default:
		return "", fmt.Errorf("create key %s: key type %q is not offered", name, kind)
	}
	if err != nil {
		return "", fmt.Errorf("create key %s: %w", name, err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.keys[name] = append(v.keys[name], k)
	if err := v.save(); err != nil {
		v.keys[name] = v.keys[name][:len(v.keys[name])-1]
		return "", fmt.Errorf("save key %s: %w", name, err)
	}
	return k.ID, nil
}

// Rotate makes a new version of an existing key, of the same kind and size. Older versions go on unwrapping.
func (v *Vault) Rotate(name string) (string, error) {
	k, err := v.find(name, "")
	if err != nil {
		return "", fmt.Errorf("rotate key %s: %w", name, err)
	}
	if k.rsa != nil {
		return v.CreateKey(name, "RSA", k.rsa.N.BitLen())
	}
	return v.CreateKey(name, "EC", 0)
}

// Ensure creates the key name unless it exists, and returns the id of its current version.
func (v *Vault) Ensure(name, kind string, bits int) (string, error) {
	if k, err := v.find(name, ""); err == nil {
		return k.ID, nil
	}
	return v.CreateKey(name, kind, bits)
}

// Disable makes every later use of a key version fail with 403; an empty id means the current version.
func (v *Vault) Disable(name, id string) error {
	k, err := v.find(name, id)
	if err != nil {
		return fmt.Errorf("disable key %s: %w", name, err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	k.Enabled = false
	return v.save()
}

func (v *Vault) find(name, id string) (*version, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	versions := v.keys[name]
	for i := len(versions) - 1; i >= 0; i-- {
		if id == "" || versions[i].ID == id {
			return versions[i], nil
		}
	}
	return nil, ErrNoKey
}

// Throttle answers the next n calls of op with 429 and a Retry-After of the given whole seconds. An empty op means any.
func (v *Vault) Throttle(op string, n, retryAfter int) {
	v.add(fault{op: op, left: n, status: http.StatusTooManyRequests, retryAfter: retryAfter})
}

// Fail answers the next n calls of op with 503. An empty op means any.
func (v *Vault) Fail(op string, n int) {
	v.add(fault{op: op, left: n, status: http.StatusServiceUnavailable, retryAfter: -1})
}

func (v *Vault) add(f fault) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.faults = append(v.faults, f)
}

// DenyUnwrap makes unwrapkey answer 403 to tokens of the application clientID, until AllowUnwrap.
func (v *Vault) DenyUnwrap(clientID string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.denied[clientID] = true
}

// AllowUnwrap takes DenyUnwrap back.
func (v *Vault) AllowUnwrap(clientID string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.denied, clientID)
}

// Counts returns how often each operation was called with a valid token, those answered by a fault included.
func (v *Vault) Counts() map[string]int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return maps.Clone(v.counts)
}
