package keyvault

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strconv"
	"strings"
)

const maxBody = 64 << 10

// p256Bytes is the length of r and of s in an ES256 signature, RFC 7518 section 3.4.
const p256Bytes = 32

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	w.WriteHeader(status)
	// A failed write means that the client has gone.
	_ = json.NewEncoder(w).Encode(v)
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	answer(w, status, map[string]any{"error": map[string]string{"code": code, "message": message}})
}

func (v *Vault) wellFormed(token string) (map[string]any, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errors.New("token has not three parts")
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, fmt.Errorf("decode token: %w", err)
	}
	var claims map[string]any
	if err := json.Unmarshal(b, &claims); err != nil {
		return nil, fmt.Errorf("decode token: %w", err)
	}
	if claims["aud"] != Resource {
		return nil, errors.New("token is for another audience")
	}
	if exp, ok := claims["exp"].(float64); !ok || int64(exp) <= v.cfg.Now().Unix() {
		return nil, errors.New("token is expired")
	}
	return claims, nil
}

// ServeHTTP answers the key operations under /keys/.
func (v *Vault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		v.challenge(w, "AKV10000: Request is missing a Bearer or PoP token.")
		return
	}
	claims, err := v.cfg.VerifyToken(token)
	if err != nil {
		v.challenge(w, "AKV10022: Invalid token. Token validation failed.")
		return
	}
	if r.URL.Query().Get("api-version") == "" {
		refuse(w, http.StatusBadRequest, "BadParameter", "api-version must be specified")
		return
	}
	name, id, op := route(r)
	if op == "" {
		refuse(w, http.StatusNotFound, "NotFound", "The requested resource does not exist.")
		return
	}
	if v.cfg.Audit != nil {
		heard := &listener{ResponseWriter: w}
		w = heard
		defer func() { v.audit(r, op, name, id, claims, heard.status) }()
	}
	if v.faulted(w, op) {
		return
	}
	switch op {
	case OpCreate:
		v.create(w, r, name)
		return
	case OpRotate:
		if _, err := v.Rotate(name); err != nil {
			refuse(w, http.StatusNotFound, "KeyNotFound", fmt.Sprintf("A key with (name/id) %s was not found in this key vault.", name))
			return
		}
	}
	k, err := v.find(name, id)
	if err != nil {
		refuse(w, http.StatusNotFound, "KeyNotFound", fmt.Sprintf("A key with (name/id) %s/%s was not found in this key vault.", name, id))
		return
	}
	if op == OpGet || op == OpRotate {
		v.show(w, r, name, k)
		return
	}
	v.use(w, r, name, k, op, claims)
}

func (v *Vault) challenge(w http.ResponseWriter, message string) {
	w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer authorization=%q, resource=%q`, v.cfg.Authority, Resource))
	refuse(w, http.StatusUnauthorized, "Unauthorized", message)
}

// route reads a path of the forms /keys/{name}[/{version}][/{operation}]; azkeys leaves an empty version out of a POST
// and keeps its slash in a GET.
func route(r *http.Request) (name, id, op string) {
	rest, ok := strings.CutPrefix(r.URL.Path, "/keys/")
	if !ok {
		return "", "", ""
	}
	parts := strings.Split(strings.TrimSuffix(rest, "/"), "/")
	name = parts[0]
	if r.Method == http.MethodGet && len(parts) <= 2 {
		if len(parts) == 2 {
			id = parts[1]
		}
		return name, id, OpGet
	}
	if r.Method != http.MethodPost || len(parts) < 2 || len(parts) > 3 {
		return "", "", ""
	}
	if len(parts) == 3 {
		id = parts[1]
	}
	switch op = parts[len(parts)-1]; op {
	case OpWrap, OpUnwrap, OpSign, OpVerify:
		return name, id, op
	case OpCreate, OpRotate:
		if id == "" {
			return name, "", op
		}
	}
	return "", "", ""
}

// faulted counts the call and answers it if a fault is due.
func (v *Vault) faulted(w http.ResponseWriter, op string) bool {
	v.mu.Lock()
	v.counts[op]++
	var due *fault
	for i := range v.faults {
		f := &v.faults[i]
		if f.left > 0 && (f.op == "" || f.op == op) {
			f.left--
			copied := *f
			due = &copied
			break
		}
	}
	v.mu.Unlock()
	if due == nil {
		return false
	}
	if due.retryAfter >= 0 {
		w.Header().Set("Retry-After", strconv.Itoa(due.retryAfter))
	}
	if due.status == http.StatusTooManyRequests {
		refuse(w, due.status, "Throttled", "Request was not processed because too many requests were received.")
	} else {
		refuse(w, due.status, "ServiceUnavailable", "The service is temporarily unavailable.")
	}
	return true
}

func read(w http.ResponseWriter, r *http.Request, into any) bool {
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(into); err != nil {
		refuse(w, http.StatusBadRequest, "BadParameter", "The request body is not valid JSON.")
		return false
	}
	return true
}

func (v *Vault) create(w http.ResponseWriter, r *http.Request, name string) {
	var body struct {
		Kty  string `json:"kty"`
		Size int    `json:"key_size"`
		Crv  string `json:"crv"`
	}
	if !read(w, r, &body) {
		return
	}
	kind := strings.TrimSuffix(body.Kty, "-HSM")
	if kind == "EC" && body.Crv != "" && body.Crv != "P-256" {
		refuse(w, http.StatusBadRequest, "BadParameter", fmt.Sprintf("Curve %s is not supported.", body.Crv))
		return
	}
	id, err := v.CreateKey(name, kind, body.Size)
	if err != nil {
		refuse(w, http.StatusBadRequest, "BadParameter", err.Error())
		return
	}
	k, err := v.find(name, id)
	if err != nil {
		refuse(w, http.StatusInternalServerError, "InternalServerError", err.Error())
		return
	}
	v.show(w, r, name, k)
}

func kid(r *http.Request, name, id string) string {
	scheme := "https"
	if r.TLS == nil {
		scheme = "http"
	}
	return scheme + "://" + r.Host + "/keys/" + name + "/" + id
}

func (v *Vault) show(w http.ResponseWriter, r *http.Request, name string, k *version) {
	b64 := base64.RawURLEncoding.EncodeToString
	jwk := map[string]any{"kid": kid(r, name, k.ID)}
	if k.rsa != nil {
		jwk["kty"] = "RSA"
		jwk["key_ops"] = []string{"encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"}
		jwk["n"], jwk["e"] = b64(k.rsa.N.Bytes()), b64(big.NewInt(int64(k.rsa.E)).Bytes())
	} else {
		point, err := k.ec.PublicKey.Bytes() // 0x04, x, y
		if err != nil {
			refuse(w, http.StatusInternalServerError, "InternalServerError", err.Error())
			return
		}
		jwk["kty"], jwk["crv"] = "EC", "P-256"
		jwk["key_ops"] = []string{"sign", "verify"}
		jwk["x"], jwk["y"] = b64(point[1:1+p256Bytes]), b64(point[1+p256Bytes:])
	}
	v.mu.Lock()
	enabled := k.Enabled
	v.mu.Unlock()
	answer(w, http.StatusOK, map[string]any{
		"key": jwk,
		"attributes": map[string]any{
			"enabled": enabled, "created": k.Created.Unix(), "updated": k.Created.Unix(),
			"recoveryLevel": "Purgeable", "recoverableDays": 0, "exportable": false,
		},
	})
}

// use runs a cryptographic operation.
func (v *Vault) use(w http.ResponseWriter, r *http.Request, name string, k *version, op string, claims map[string]any) {
	v.mu.Lock()
	enabled := k.Enabled
	app, _ := claims["appid"].(string)
	if app == "" {
		app, _ = claims["azp"].(string)
	}
	denied := op == OpUnwrap && v.denied[app]
	v.mu.Unlock()
	if denied {
		refuse(w, http.StatusForbidden, "Forbidden", "Caller is not authorized to perform action on resource. Action: 'Microsoft.KeyVault/vaults/keys/unwrap/action'")
		return
	}
	if !enabled {
		refuse(w, http.StatusForbidden, "Forbidden", "Operation "+op+" is not allowed on a disabled key.")
		return
	}
	var body struct{ Alg, Value, Digest string }
	if !read(w, r, &body) {
		return
	}
	field := body.Value
	if op == OpVerify {
		field = body.Digest
	}
	in, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(field, "="))
	if err != nil {
		refuse(w, http.StatusBadRequest, "BadParameter", "Property value is not base64url.")
		return
	}
	if op == OpVerify {
		sig, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(body.Value, "="))
		if err != nil || body.Alg != "ES256" || k.ec == nil || len(in) != sha256.Size {
			refuse(w, http.StatusBadRequest, "BadParameter", "Key and signing algorithm are incompatible, or the digest is not of the algorithm's size.")
			return
		}
		answer(w, http.StatusOK, map[string]any{"value": verify(k.ec, in, sig)})
		return
	}
	out, err := k.do(op, body.Alg, in)
	if err != nil {
		refuse(w, http.StatusBadRequest, "BadParameter", err.Error())
		return
	}
	answer(w, http.StatusOK, map[string]any{
		"kid":   kid(r, name, k.ID),
		"value": base64.RawURLEncoding.EncodeToString(out),
	})
}

func (k *version) do(op, alg string, in []byte) ([]byte, error) {
	switch {
	case op == OpWrap && alg == "RSA-OAEP-256" && k.rsa != nil:
		return rsa.EncryptOAEP(sha256.New(), rand.Reader, &k.rsa.PublicKey, in, nil)
	case op == OpUnwrap && alg == "RSA-OAEP-256" && k.rsa != nil:
		return rsa.DecryptOAEP(sha256.New(), nil, k.rsa, in, nil)
	case op == OpSign && alg == "ES256" && k.ec != nil:
		if len(in) != sha256.Size {
			return nil, fmt.Errorf("invalid length of 'value': %d bytes, ES256 requires %d", len(in), sha256.Size)
		}
		r, s, err := ecdsa.Sign(rand.Reader, k.ec, in)
		if err != nil {
			return nil, err
		}
		raw := make([]byte, 2*p256Bytes)
		r.FillBytes(raw[:p256Bytes])
		s.FillBytes(raw[p256Bytes:])
		return raw, nil
	}
	return nil, fmt.Errorf("key and algorithm %q are incompatible with %s", alg, op)
}

// verify checks a signature of the form r||s.
func verify(key *ecdsa.PrivateKey, digest, sig []byte) bool {
	if len(sig) != 2*p256Bytes {
		return false
	}
	r, s := new(big.Int).SetBytes(sig[:p256Bytes]), new(big.Int).SetBytes(sig[p256Bytes:])
	return ecdsa.Verify(&key.PublicKey, digest, r, s)
}
