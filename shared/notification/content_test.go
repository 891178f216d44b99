package notification_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"steno/shared/notification"
	"steno/tests/sim"
)

// vector is a key, and content that was encrypted under it by another program.
type vector struct {
	Content sim.Encrypted `json:"encryptedContent"`
	Key     string        `json:"privateKeyPKCS8"`
}

func readVector(t testing.TB) (notification.PrivateKey, *rsa.PublicKey, sim.Encrypted) {
	t.Helper()
	b, err := sim.Fixture("notification-decrypt-vector.synthetic.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vector
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(v.Key))
	key, err := notification.ParsePrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key, &parsed.(*rsa.PrivateKey).PublicKey, v.Content
}

func contentOf(e sim.Encrypted) notification.Content {
	return notification.Content{Data: e.Data, Signature: e.Signature, Key: e.Key, Certificate: e.Certificate}
}

func TestContentEncryptedByAnotherProgramOpens(t *testing.T) {
	key, _, content := readVector(t)
	plain, err := key.Open(contentOf(content))
	if err != nil {
		t.Fatal(err)
	}
	var m struct{ ID, ChatID string }
	if err := json.Unmarshal(plain, &m); err != nil || m.ID == "" {
		t.Errorf("plain bytes are no message: %v", err)
	}
}

// forge encrypts as Graph does, with whatever key and padding; sign decides what the HMAC is of.
func forge(t testing.TB, to *rsa.PublicKey, key, padded []byte) sim.Encrypted {
	t.Helper()
	wrapped, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, to, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Clone(padded)
	if block, err := aes.NewCipher(key); err == nil && len(data)%aes.BlockSize == 0 {
		cipher.NewCBCEncrypter(block, key[:aes.BlockSize]).CryptBlocks(data, data)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(data)
	encode := base64.StdEncoding.EncodeToString
	return sim.Encrypted{Data: encode(data), Signature: encode(mac.Sum(nil)), Key: encode(wrapped), Certificate: "c"}
}

// TestWhateverIsWrongWithContentTheAnswerIsTheSame: one error for every cause, so that there
// is no oracle, and content whose signature is not good is not decrypted at all.
func TestWhateverIsWrongWithContentTheAnswerIsTheSame(t *testing.T) {
	key, public, good := readVector(t)
	other, _, err := notification.NewKeyPair("c", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	flip := func(s string) string {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 1
		return base64.StdEncoding.EncodeToString(b)
	}
	with := func(change func(*sim.Encrypted)) sim.Encrypted {
		c := good
		change(&c)
		return c
	}
	block := []byte("0123456789abcdef")
	padding := func(last ...byte) []byte { return append(bytes.Clone(block[:16-len(last)]), last...) }
	for name, c := range map[string]sim.Encrypted{
		"flipped data":                   with(func(c *sim.Encrypted) { c.Data = flip(c.Data) }),
		"flipped signature":              with(func(c *sim.Encrypted) { c.Signature = flip(c.Signature) }),
		"flipped key":                    with(func(c *sim.Encrypted) { c.Key = flip(c.Key) }),
		"no signature":                   with(func(c *sim.Encrypted) { c.Signature = "" }),
		"data that is not base64":        with(func(c *sim.Encrypted) { c.Data = "!" + c.Data }),
		"data cut by a block":            with(func(c *sim.Encrypted) { c.Data = c.Data[:len(c.Data)-64] }),
		"no data":                        forge(t, public, block, nil),
		"a key of 15 bytes":              forge(t, public, block[:15], padding(1)),
		"a key of 33 bytes":              forge(t, public, append(append(bytes.Clone(block), block...), 1), padding(1)),
		"an empty key":                   forge(t, public, nil, padding(1)),
		"data that is no whole block":    forge(t, public, block, block[:15]),
		"padding of 0":                   forge(t, public, block, padding(0)),
		"padding of 17":                  forge(t, public, block, padding(17)),
		"padding that is not the length": forge(t, public, block, padding(1, 3, 3)),
	} {
		plain, err := key.Open(contentOf(c))
		if plain != nil || err != notification.ErrContent {
			t.Errorf("%s: %d bytes, %v", name, len(plain), err)
		}
	}
	if _, err := other.Open(contentOf(good)); err != notification.ErrContent {
		t.Errorf("another's key: %v", err)
	}
	if _, err := (notification.PrivateKey{}).Open(contentOf(good)); err != notification.ErrContent {
		t.Errorf("no key: %v", err)
	}
}

func TestAKeyPairOpensWhatIsEncryptedToItsCertificateAndSurvivesBeingKept(t *testing.T) {
	key, cert, err := notification.NewKeyPair("c1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(cert.DER)
	if err != nil {
		t.Fatal(err)
	}
	public := parsed.PublicKey.(*rsa.PublicKey)
	if n := public.N.BitLen(); n < 2048 || n > 4096 {
		t.Errorf("key of %d bits; Graph takes 2048 to 4096", n)
	}
	kept, err := key.Seal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := notification.ParsePrivateKey(kept)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{0, 1, 15, 16, 17, 100_000} {
		plain := bytes.Repeat([]byte("x"), size)
		c, err := sim.Encrypt(public, "c1", plain)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := again.Open(contentOf(c)); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	if _, err := notification.ParsePrivateKey(cert.DER); err == nil {
		t.Error("a certificate passed for a private key")
	}
}

func TestAPrivateKeyPrintsNothing(t *testing.T) {
	key, _, _ := readVector(t)
	der, err := key.Seal()
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		t.Fatal(err)
	}
	var line bytes.Buffer
	slog.New(slog.NewTextHandler(&line, nil)).Info("x", slog.Any("key", key))
	for _, form := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		fmt.Fprintf(&line, form, key)
		fmt.Fprintf(&line, form, &key)
		fmt.Fprintf(&line, form, struct{ K notification.PrivateKey }{key})
	}
	d := parsed.(*rsa.PrivateKey).D
	for _, secret := range []string{d.String(), d.Text(16), base64.StdEncoding.EncodeToString(der)[40:80]} {
		if strings.Contains(line.String(), secret) {
			t.Errorf("the key is printed: %s", line.String())
		}
	}
	if b, err := json.Marshal(struct{ K notification.PrivateKey }{key}); err == nil {
		t.Errorf("written as %s", b)
	}
}

func itemOf(t testing.TB, c sim.Encrypted, resource, id, etag string) notification.Item {
	t.Helper()
	raw, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return notification.Item{Resource: resource, ID: id, ETag: etag, Content: raw}
}

// TestContentOfAnotherMessageIsRefused: nothing binds content to the item it came in.
func TestContentOfAnotherMessageIsRefused(t *testing.T) {
	key, public, _ := readVector(t)
	encrypt := func(plain string) sim.Encrypted {
		c, err := sim.Encrypt(public, "c", []byte(plain))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	const chat = `{"@odata.context":"x","id":"17","etag":"99","chatId":"19:a@thread.v2"}`
	const channel = `{"id":"17","etag":"99","chatId":null,"channelIdentity":{"teamId":"11111111-1111-4111-8111-11111111111A","channelId":"19:c@thread.tacv2"}}`
	const inChannel = "teams('11111111-1111-4111-8111-11111111111a')/channels('19:c@thread.tacv2')/messages('17')"
	for name, c := range map[string]struct {
		plain, resource, id, etag string
		good                      bool
	}{
		"the message":                      {chat, "chats('19:a@thread.v2')/messages('17')", "17", "", true},
		"with its etag":                    {chat, "chats('19:a@thread.v2')/messages('17')", "17", `W/"99"`, true},
		"under a user":                     {chat, "users('u')/chats('19:a@thread.v2')/messages('17')", "17", "", true},
		"in a channel":                     {channel, inChannel, "17", "", true},
		"a reply":                          {channel, strings.Replace(inChannel, "messages('17')", "messages('3')/replies('17')", 1), "17", "", true},
		"another id":                       {chat, "chats('19:a@thread.v2')/messages('18')", "18", "", false},
		"another id in the data":           {chat, "chats('19:a@thread.v2')/messages('17')", "18", "", false},
		"another etag":                     {chat, "chats('19:a@thread.v2')/messages('17')", "17", "98", false},
		"another chat":                     {chat, "chats('19:b@thread.v2')/messages('17')", "17", "", false},
		"another team":                     {channel, strings.Replace(inChannel, "11111111", "22222222", 1), "17", "", false},
		"another channel":                  {channel, strings.Replace(inChannel, "19:c", "19:d", 1), "17", "", false},
		"a chat in place of a channel":     {chat, inChannel, "17", "", false},
		"a channel in place of a chat":     {channel, "chats('19:c@thread.tacv2')/messages('17')", "17", "", false},
		"a chat and a channel at once":     {strings.Replace(chat, "{", `{"channelIdentity":{"teamId":"t","channelId":"19:a@thread.v2"},`, 1), "chats('19:a@thread.v2')/messages('17')", "17", "", false},
		"an id that stands twice":          {strings.Replace(chat, "{", `{"id":"17",`, 1), "chats('19:a@thread.v2')/messages('17')", "17", "", false},
		"something that is not a message":  {`[1]`, "chats('19:a@thread.v2')/messages('17')", "17", "", false},
		"a resource that names no message": {chat, "chats('19:a@thread.v2')", "17", "", false},
		"a resource with more behind":      {chat, "chats('19:a@thread.v2')/messages('17')/hostedContents('1')", "17", "", false},
	} {
		plain, err := itemOf(t, encrypt(c.plain), c.resource, c.id, c.etag).Open(key)
		switch {
		case c.good && (err != nil || string(plain) != c.plain):
			t.Errorf("%s: %v", name, err)
		case !c.good && !errors.Is(err, notification.ErrOther):
			t.Errorf("%s: %v, want it refused", name, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	key, public, good := readVector(f)
	f.Add(good.Data, good.Signature, good.Key)
	small := forge(f, public, []byte("0123456789abcdef"), bytes.Repeat([]byte{16}, 16))
	f.Add(small.Data, small.Signature, small.Key)
	f.Add("", "", "")
	f.Fuzz(func(t *testing.T, data, signature, wrapped string) {
		plain, err := key.Open(notification.Content{Data: data, Signature: signature, Key: wrapped})
		if err != nil && (err != notification.ErrContent || plain != nil) {
			t.Errorf("%d bytes, %v", len(plain), err)
		}
	})
}
