package sim

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// NotificationKeysPath is where the keys of validation tokens are published, on the tenant's handler.
const NotificationKeysPath = "/common/discovery/v2.0/keys"

// publisher is the application in whose name Graph notifies,
// https://learn.microsoft.com/graph/change-notifications-with-resource-data.
const publisher = "0bf30f3b-4a52-48df-9a82-234910c4a086"

// Encrypted is encryptedContent of a notification.
type Encrypted struct {
	Data        string `json:"data"`
	Signature   string `json:"dataSignature"`
	Key         string `json:"dataKey"`
	Certificate string `json:"encryptionCertificateId"`
	Thumbprint  string `json:"encryptionCertificateThumbprint"`
}

// Encrypt encrypts as Graph does: a key of its own for each item under RSAES-OAEP with SHA-1, AES-CBC with PKCS #7 and
// the key's first half as vector, and an HMAC-SHA256 of the ciphertext.
func Encrypt(key *rsa.PublicKey, certificate string, plain []byte) (Encrypted, error) {
	symmetric := make([]byte, 32)
	_, _ = rand.Read(symmetric) // never fails since Go 1.24
	wrapped, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, key, symmetric, nil)
	if err != nil {
		return Encrypted{}, fmt.Errorf("encrypt notification: %w", err)
	}
	block, err := aes.NewCipher(symmetric)
	if err != nil {
		return Encrypted{}, fmt.Errorf("encrypt notification: %w", err)
	}
	pad := aes.BlockSize - len(plain)%aes.BlockSize
	data := append(bytes.Clone(plain), bytes.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCBCEncrypter(block, symmetric[:aes.BlockSize]).CryptBlocks(data, data)
	mac := hmac.New(sha256.New, symmetric)
	mac.Write(data)
	encode := base64.StdEncoding.EncodeToString
	return Encrypted{Data: encode(data), Signature: encode(mac.Sum(nil)), Key: encode(wrapped), Certificate: certificate}, nil
}

// copyOf returns a subscription as it is now.
func (n *notices) copyOf(id string) (subscription, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s := n.find(id); s != nil {
		return *s, true
	}
	return subscription{}, false
}

// body writes a delivery.
func (n *notices) body(batch []*outgoing) ([]byte, error) {
	value := []any{}
	app, encrypted := "", false
	for _, w := range batch {
		s, ok := n.copyOf(w.to)
		if !ok {
			continue
		}
		app = s.app
		item := map[string]any{
			"subscriptionId": s.id, "subscriptionExpirationDateTime": s.expires.Format(time.RFC3339Nano), "tenantId": n.t.cfg.Tenant, "clientState": s.state,
		}
		if w.lifecycle != "" {
			item["lifecycleEvent"] = w.lifecycle
			value = append(value, item)
			continue
		}
		content, err := Encrypt(s.key, s.certificateID, w.body)
		if err != nil {
			return nil, err
		}
		encrypted = true
		item["changeType"], item["resource"], item["encryptedContent"] = w.change, w.resource, content
		item["resourceData"] = map[string]any{"id": w.message.ID, "@odata.type": "#Microsoft.Graph.chatMessage", "@odata.id": w.resource}
		value = append(value, item)
	}
	out := map[string]any{"value": value}
	if encrypted {
		token, err := n.t.ValidationToken(app, nil)
		if err != nil {
			return nil, err
		}
		out["validationTokens"] = []string{token}
	}
	return json.Marshal(out)
}

// send makes one request; it reports whether the endpoint took the delivery.
func (n *notices) send(ctx context.Context, address string, batch []*outgoing) bool {
	body, err := n.body(batch)
	if err != nil {
		return false
	}
	patience := firstPatience
	if batch[0].tries > 0 {
		patience = laterPatience
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	status, _, err := n.post(ctx, address, "application/json", body)
	return err == nil && status >= 200 && status < 300
}

func (n *notices) post(ctx context.Context, address, contentType string, body []byte) (status int, answer *http.Response, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", contentType)
	res, err := n.t.notifyClient().Do(req)
	if err != nil {
		return 0, nil, err
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return 0, nil, err
	}
	res.Body = io.NopCloser(bytes.NewReader(text))
	return res.StatusCode, res, nil
}

// key returns the signing key, which is made when it is first needed. mu is held.
func (n *notices) key() (*rsa.PrivateKey, string, error) {
	if n.signing == nil {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return nil, "", fmt.Errorf("make signing key: %w", err)
		}
		n.signing, n.signingID = key, drawHex(n.rand)
	}
	return n.signing, n.signingID, nil
}

// ValidationToken signs a token for an application, of version 1.0 and 2.0 by turns: which one an application gets its
// own manifest says. change may alter its claims; nil leaves them.
func (t *Tenant) ValidationToken(app string, change func(claims map[string]any)) (string, error) {
	n := t.notices
	n.mu.Lock()
	defer n.mu.Unlock()
	key, id, err := n.key()
	if err != nil {
		return "", err
	}
	n.tokens++
	now := t.now()
	claims := jwt.MapClaims{"aud": app, "tid": t.cfg.Tenant, "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix()}
	if n.tokens%2 == 0 {
		claims["ver"], claims["iss"], claims["appid"], claims["appidacr"] = "1.0", "https://sts.windows.net/"+t.cfg.Tenant+"/", publisher, "2"
	} else {
		claims["ver"], claims["iss"], claims["azp"], claims["azpacr"] = "2.0", "https://login.microsoftonline.com/"+t.cfg.Tenant+"/v2.0", publisher, "2"
	}
	if change != nil {
		change(claims)
	}
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
	token.Header["kid"] = id
	return token.SignedString(key)
}

// serveKeys serves the key set; it reports whether the request was for it.
func (n *notices) serveKeys(q *request) bool {
	if q.r.URL.Path != NotificationKeysPath {
		return false
	}
	n.mu.Lock()
	key, id, err := n.key()
	n.mu.Unlock()
	n.t.counts.add(q.r.URL.Path)
	if err != nil {
		q.fail(n.t, http.StatusInternalServerError, "UnknownError", err.Error())
		return true
	}
	q.json(http.StatusOK, map[string]any{"keys": []any{map[string]any{
		"kty": "RSA", "use": "sig", "kid": id, "issuer": "https://login.microsoftonline.com/{tenantid}/v2.0",
		"n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()),
		"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes()),
	}}})
	return true
}
