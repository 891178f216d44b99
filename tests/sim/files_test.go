package sim_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"steno/tests/sim"
)

// pointed is what the messages of a history point at: addresses with when their messages were
// sent, oldest first.
type pointed struct {
	address string
	sent    time.Time
}

var hostedAddress = regexp.MustCompile(`https://graph\.microsoft\.com/v1\.0(/chats/[^"\\]+/hostedContents/[^"\\]+/\$value)`)

func (f *fixture) pointedAt() (files []pointed, hosted []string) {
	f.t.Helper()
	for _, v := range f.History() {
		var m struct {
			Body        struct{ Content string }
			Attachments []struct {
				ContentType string
				ContentURL  string
			}
		}
		if err := json.Unmarshal(v.Bytes, &m); err != nil {
			continue // a fault made it unreadable
		}
		for _, a := range m.Attachments {
			files = append(files, pointed{a.ContentURL, v.Sent})
		}
		if v.CurrentTo.IsZero() {
			for _, x := range hostedAddress.FindAllStringSubmatch(m.Body.Content, -1) {
				hosted = append(hosted, x[1])
			}
		}
	}
	return files, hosted
}

// raw asks without following, under a token.
func (f *fixture) raw(address string) *http.Response {
	f.t.Helper()
	req, err := http.NewRequestWithContext(f.t.Context(), http.MethodGet, address, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer x")
	resp, err := f.http.Transport.RoundTrip(req)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestAFileIsHadAsItsFateSaysAndWithTheBytesOfItsTime(t *testing.T) {
	cdn := httptest.NewUnstartedServer(nil)
	cdn.Start()
	t.Cleanup(cdn.Close)
	f := newFixture(t, sim.Config{Messages: 6000, People: 40, FilesURL: cdn.URL})
	cdn.Config.Handler = f.Downloads()
	files, _ := f.pointedAt()
	met := map[sim.FileFate]int{}
	rules := map[string]int{}
	for _, p := range files {
		truth, ok := f.FileTruth(p.address, p.sent)
		if !ok {
			t.Fatalf("nothing is known of %s", p.address)
		}
		met[truth.Fate]++
		token := "u!" + base64.RawURLEncoding.EncodeToString([]byte(strings.ReplaceAll(p.address, " ", "%20")))
		r := f.raw(f.url + "/v1.0/shares/" + token + "/driveItem")
		want := map[sim.FileFate]int{sim.FileGone: 404, sim.FileForbidden: 403, sim.FileExternal: 403}[truth.Fate]
		if want == 0 {
			want = http.StatusOK
		}
		if r.StatusCode != want {
			t.Fatalf("a file that is %q: %d, want %d", truth.Fate, r.StatusCode, want)
		}
		if truth.Fate != sim.FileServed {
			continue
		}
		var item struct {
			ID       string
			Modified time.Time `json:"lastModifiedDateTime"`
			File     struct{ Hashes struct{ QuickXorHash string } }
			Parent   struct{ DriveID string } `json:"parentReference"`
		}
		if err := json.NewDecoder(r.Body).Decode(&item); err != nil || item.File.Hashes.QuickXorHash == "" {
			t.Fatalf("%+v, %v", item, err)
		}
		path, rule := f.url+"/v1.0/drives/"+item.Parent.DriveID+"/items/"+item.ID+"/content", "current"
		if item.Modified.After(p.sent) {
			if version := f.versionAt(f.url+"/v1.0/drives/"+item.Parent.DriveID+"/items/"+item.ID+"/versions", p.sent); version != "" {
				path, rule = strings.TrimSuffix(path, "content")+"versions/"+version+"/content", "at sending"
			} else {
				rule = "later"
			}
		}
		rules[rule]++
		r = f.raw(path)
		if r.StatusCode != http.StatusFound || !strings.HasPrefix(r.Header.Get("Location"), cdn.URL) {
			t.Fatalf("content by rule %s: %d to %q", rule, r.StatusCode, r.Header.Get("Location"))
		}
		resp, err := http.Get(r.Header.Get("Location"))
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		_, err = got.ReadFrom(resp.Body)
		resp.Body.Close()
		if err != nil || !bytes.Equal(got.Bytes(), truth.Bytes) {
			t.Fatalf("by rule %s other bytes than at sending time: %v", rule, err)
		}
	}
	for _, fate := range []sim.FileFate{sim.FileServed, sim.FileGone, sim.FileForbidden, sim.FileLocked, sim.FileAstray, sim.FileEndless, sim.FileExternal} {
		if met[fate] == 0 {
			t.Errorf("no file is %q: %v", fate, met)
		}
	}
	if rules["current"] == 0 || rules["at sending"] == 0 || rules["later"] == 0 {
		t.Errorf("rules %v", rules)
	}
	if f.LeakedTokens() != 0 {
		t.Error("a token was seen at the downloads, and none was sent there")
	}
}

// versionAt follows the pages of versions and returns the last that is not later.
func (f *fixture) versionAt(address string, at time.Time) string {
	f.t.Helper()
	best, id := time.Time{}, ""
	for address != "" {
		var page struct {
			Value []struct {
				ID       string
				Modified time.Time `json:"lastModifiedDateTime"`
			}
			Next string `json:"@odata.nextLink"`
		}
		if err := json.NewDecoder(f.raw(address).Body).Decode(&page); err != nil {
			f.t.Fatal(err)
		}
		for _, v := range page.Value {
			if !v.Modified.After(at) && v.Modified.After(best) {
				best, id = v.Modified, v.ID
			}
		}
		address = page.Next
	}
	return id
}

func TestHostedContentIsServedOnceASecondInAChat(t *testing.T) {
	f := newFixture(t, sim.Config{Messages: 2000})
	_, hosted := f.pointedAt()
	if len(hosted) < 10 {
		t.Fatalf("%d images", len(hosted))
	}
	path := hosted[0]
	r := f.raw(f.url + "/v1.0" + path)
	var got bytes.Buffer
	if _, err := got.ReadFrom(r.Body); err != nil || r.StatusCode != http.StatusOK || !bytes.Equal(got.Bytes(), sim.HostedTruth("https://graph.microsoft.com/v1.0"+path)) {
		t.Fatalf("%d, %d bytes, %v", r.StatusCode, got.Len(), err)
	}
	if r := f.raw(f.url + "/v1.0" + path); r.StatusCode != http.StatusTooManyRequests || r.Header.Get("Retry-After") != "1" {
		t.Errorf("again at once: %d", r.StatusCode)
	}
	chat := func(p string) string { return strings.Split(p, "/")[2] }
	other := slices.IndexFunc(hosted, func(p string) bool { return chat(p) != chat(path) })
	if r := f.raw(f.url + "/v1.0" + hosted[other]); r.StatusCode != http.StatusOK {
		t.Errorf("another chat: %d", r.StatusCode)
	}
	f.clock.Advance(time.Second)
	if r := f.raw(f.url + "/v1.0" + path); r.StatusCode != http.StatusOK || f.HostedThrottled() != 1 {
		t.Errorf("a second later: %d, %d refused", r.StatusCode, f.HostedThrottled())
	}
	f.clock.Advance(time.Second)
	if r := f.raw(f.url + "/v1.0" + strings.Replace(path, "/hostedContents/", "/hostedContents/x", 1)); r.StatusCode != http.StatusNotFound {
		t.Errorf("content that no message has: %d", r.StatusCode)
	}
}

func TestTokensThatReachTheDownloadsAreCounted(t *testing.T) {
	f := newFixture(t, sim.Config{})
	s := httptest.NewServer(f.Downloads())
	t.Cleanup(s.Close)
	if r := f.raw(s.URL + "/download/x/1"); r.StatusCode != http.StatusUnauthorized || f.LeakedTokens() != 1 {
		t.Errorf("%d, %d tokens", r.StatusCode, f.LeakedTokens())
	}
}
