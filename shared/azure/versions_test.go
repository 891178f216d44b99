package azure_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"steno/shared/azure"
	"steno/shared/evidence"
)

// versioned answers as Blob storage with versioning is documented to; Azurite keeps no
// versions. Deleting a blob moves its current version aside, whatever protects it; only
// deleting a version destroys, and that is refused where a date stands.
// https://learn.microsoft.com/azure/storage/blobs/versioning-overview
type versioned struct {
	mu       sync.Mutex
	versions []version // in the order in which they are listed
	drop     bool      // the answer to the next deletion is lost
}

type version struct {
	name, id string
	current  bool
	until    time.Time
}

func (s *versioned) find(name string, match func(version) bool) int {
	for i, v := range s.versions {
		if v.name == name && match(v) {
			return i
		}
	}
	return -1
}

func (s *versioned) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name, id := strings.TrimPrefix(r.URL.Path, "/c/"), r.URL.Query().Get("versionid")
	fail := func(status int, code string) {
		w.Header().Set("x-ms-error-code", code)
		w.WriteHeader(status)
	}
	current := s.find(name, func(v version) bool { return v.current })
	switch {
	case r.Method == http.MethodGet && r.URL.Query().Get("comp") == "list":
		s.list(w, r)
	case r.Method == http.MethodHead && current >= 0:
		v := s.versions[current]
		w.Header().Set("x-ms-version-id", v.id)
		if !v.until.IsZero() {
			w.Header().Set("x-ms-immutability-policy-until-date", v.until.UTC().Format(http.TimeFormat))
			w.Header().Set("x-ms-immutability-policy-mode", "locked")
		}
	case r.Method == http.MethodDelete && id == "" && current >= 0:
		s.versions[current].current = false
		if s.drop {
			s.drop = false
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(http.StatusAccepted)
	case r.Method == http.MethodDelete && id != "":
		i := s.find(name, func(v version) bool { return v.id == id })
		switch {
		case i < 0:
			fail(http.StatusNotFound, "BlobNotFound")
		case s.versions[i].current:
			fail(http.StatusForbidden, "OperationNotAllowedOnRootBlob")
		case time.Now().Before(s.versions[i].until):
			fail(http.StatusConflict, "BlobImmutableDueToPolicy")
		default:
			s.versions = append(s.versions[:i], s.versions[i+1:]...)
			w.WriteHeader(http.StatusAccepted)
		}
	default:
		fail(http.StatusNotFound, "BlobNotFound")
	}
}

func (s *versioned) list(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/xml")
	fmt.Fprint(w, `<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs>`)
	for _, v := range s.versions {
		if !strings.HasPrefix(v.name, r.URL.Query().Get("prefix")) || !v.current && r.URL.Query().Get("include") != "versions" {
			continue
		}
		fmt.Fprintf(w, "<Blob><Name>%s</Name><VersionId>%s</VersionId>", v.name, v.id)
		if v.current {
			fmt.Fprint(w, "<IsCurrentVersion>true</IsCurrentVersion>")
		}
		fmt.Fprintf(w, "<Properties><Last-Modified>%s</Last-Modified><Content-Length>7</Content-Length></Properties></Blob>", time.Now().UTC().Format(http.TimeFormat))
	}
	fmt.Fprint(w, "</Blobs><NextMarker/></EnumerationResults>")
}

func (s *versioned) client(t *testing.T) *azure.Blobs {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	c, err := container.NewClientWithNoCredential(server.URL+"/c", &container.ClientOptions{ClientOptions: azcore.ClientOptions{Retry: policy.RetryOptions{MaxRetries: -1}}})
	if err != nil {
		t.Fatal(err)
	}
	return azure.NewBlobs(c)
}

func TestADeletionTakesEveryVersionWithIt(t *testing.T) {
	s := &versioned{versions: []version{{name: "t/u/1", id: "a"}, {name: "t/u/1", id: "b", current: true}, {name: "t/u/11", id: "c", current: true}}}
	b := s.client(t)
	if list, err := b.List(t.Context(), "t/u/"); err != nil || len(list) != 2 {
		t.Fatalf("listed %+v, %v", list, err)
	}
	for range 2 {
		if err := b.Delete(t.Context(), "t/u/1"); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.versions) != 1 || s.versions[0].name != "t/u/11" || !s.versions[0].current {
		t.Errorf("left %+v", s.versions)
	}
}

func TestNothingUnderADateIsMovedAside(t *testing.T) {
	s := &versioned{versions: []version{{name: "t/u/1", id: "a", current: true, until: time.Now().Add(time.Hour)}}}
	b := s.client(t)
	if err := b.Delete(t.Context(), "t/u/1"); !errors.Is(err, evidence.ErrLocked) || !s.versions[0].current {
		t.Errorf("%v, left %+v", err, s.versions)
	}
}

func TestAVersionUnderADateStaysAndIsListedUntilItIsGone(t *testing.T) {
	s := &versioned{versions: []version{{name: "t/u/1", id: "a", until: time.Now().Add(time.Hour)}, {name: "t/u/1", id: "b", current: true}}}
	b := s.client(t)
	if err := b.Delete(t.Context(), "t/u/1"); !errors.Is(err, evidence.ErrLocked) {
		t.Errorf("%v", err)
	}
	if list, err := b.List(t.Context(), "t/u/"); err != nil || len(list) != 1 {
		t.Errorf("what is left is not listed: %+v, %v", list, err)
	}
	s.mu.Lock()
	s.versions[0].until = time.Now().Add(-time.Hour)
	s.mu.Unlock()
	if err := b.Delete(t.Context(), "t/u/1"); err != nil || len(s.versions) != 0 {
		t.Errorf("%v, left %+v", err, s.versions)
	}
}

func TestADeletionThatDiedHalfwayIsFinishedByTheNext(t *testing.T) {
	s := &versioned{versions: []version{{name: "t/u/1", id: "a", current: true}}, drop: true}
	b := s.client(t)
	if err := b.Delete(t.Context(), "t/u/1"); err == nil {
		t.Fatal("the answer was lost and nobody noticed")
	}
	if list, err := b.List(t.Context(), "t/u/"); err != nil || len(list) != 1 {
		t.Fatalf("the version that was moved aside is not listed: %+v, %v", list, err)
	}
	if err := b.Delete(t.Context(), "t/u/1"); err != nil || len(s.versions) != 0 {
		t.Errorf("%v, left %+v", err, s.versions)
	}
}
