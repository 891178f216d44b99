package export_test

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"steno/shared/custody"
	"steno/shared/policy"
)

func TestAPackageIsVerifiedWithShellAndOpensslAlone(t *testing.T) {
	r := newRig(t)
	one := r.chat(3)
	var kept []byte // as a witness keeps it
	older := func() custody.Checkpoint {
		r.sequence()
		head, _, err := custody.ReadHead(t.Context(), &r.tiles)
		r.must(err)
		kept = append([]byte(head.Signed.Text), base64.StdEncoding.EncodeToString(head.Signed.Signature)+"\n"...)
		c, err := custody.Latest(t.Context(), &r.tiles, custody.Origin(tenant), &r.signer.key.PublicKey)
		r.must(err)
		return c
	}()
	two, call := r.chat(1), r.call()
	r.sequence()
	o, b := r.built(r.order(policy.ExportOrder{Checkpoints: []int64{older.Size}}, one, two, call))
	dir := unpack(t, b)
	if verdict, code := verify(t, dir, r.fingerprint()); code != 0 || verdict != "VERIFIED" {
		t.Fatalf("%d %s", code, verdict)
	}
	if verdict, code := verify(t, dir); code != 3 || !strings.HasPrefix(verdict, "UNVERIFIED") {
		t.Errorf("without a fingerprint: %d %s", code, verdict)
	}
	if verdict, code := verify(t, dir, strings.Repeat("0", 64)); code != 1 || !strings.Contains(verdict, "another key") {
		t.Errorf("another fingerprint: %d %s", code, verdict)
	}
	file := filepath.Join(t.TempDir(), "older")
	check := func(c custody.Checkpoint, want string) {
		t.Helper()
		r.must(os.WriteFile(file, c.Text(), 0o600))
		if verdict, _ := verify(t, dir, r.fingerprint(), file); !strings.Contains(verdict, want) {
			t.Errorf("older checkpoint of %d: %s, want %s", c.Size, verdict, want)
		}
	}
	check(older, "VERIFIED")
	for want, b := range map[string][]byte{
		"VERIFIED":          kept,
		"is no signature":   append(older.Text(), "not base64!\n"...),
		"not signed by the": append(older.Text(), "MEUCIQ==\n"...),
		"or none":           append(slices.Clone(kept), '\n'),
	} {
		r.must(os.WriteFile(file, b, 0o600))
		if verdict, _ := verify(t, dir, r.fingerprint(), file); !strings.Contains(verdict, want) {
			t.Errorf("older checkpoint %q: %s, want %s", b, verdict, want)
		}
	}
	forged := older
	forged.Root[0] ^= 1
	check(forged, "split view")
	forged = older
	forged.Size = 1 << 40
	check(forged, "rollback")
	forged = older
	forged.Origin += "x"
	check(forged, "of another log")
	if o.SHA256 == "" || o.Size != int64(len(b)) {
		t.Errorf("%+v", o)
	}
}
