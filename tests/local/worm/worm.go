// Package worm is a reverse proxy that gives a Blob endpoint what the Azurite
// emulator lacks: version-level immutability. Azurite answers 501 to the calls
// that set a policy or a hold, and ignores the headers that do so on upload, so
// that without this proxy a test of write-once storage passes on storage that
// is not.
//
// It stands for an account with version-level immutability enabled on the
// account, and follows
// https://learn.microsoft.com/azure/storage/blobs/immutable-version-level-worm-policies
// except where the emulator cannot: it keeps no versions. Azure answers an
// overwrite of a protected blob by keeping the protected version beside the
// new one; here nothing would be left of the old content, so the overwrite is
// refused with the code that container-level policies give it. For the same
// reason requests that name a version are refused as not implemented instead
// of being answered with the current content. Listings do not carry the
// policies; properties and downloads do.
package worm

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"
)

// A Mode says whether a policy may still be weakened.
type Mode string

// Values of x-ms-immutability-policy-mode.
const (
	Unlocked Mode = "Unlocked"
	Locked   Mode = "Locked"
)

// MaxDays is the longest retention interval Azure accepts
// (https://learn.microsoft.com/azure/storage/blobs/immutable-time-based-retention-policy-overview).
const MaxDays = 146000

// Config says what a [Proxy] stands in front of. Upstream and Exists are
// required.
type Config struct {
	Upstream  *url.URL          // scheme and host of the Blob endpoint; its path is ignored
	Transport http.RoundTripper // nil = http.DefaultTransport

	// Exists reports whether upstream holds a blob. It is asked when a policy is
	// set, and when a write without If-None-Match: * meets a write-once
	// container.
	Exists func(ctx context.Context, container, blob string) (bool, error)

	// Journal is the file that keeps policies, holds and container defaults
	// over a restart. "" keeps them in memory.
	Journal string

	Now     func() time.Time  // nil = time.Now
	Observe func(kind string) // nil, or told of every storage operation: see the Op constants
}

// A Proxy is an http.Handler for one account's Blob endpoint. Requests may run
// concurrently; those that write the same blob take turns.
type Proxy struct {
	cfg     Config
	forward *httputil.ReverseProxy
	journal *journal
	seed    maphash.Seed
	turns   [64]sync.Mutex // by blob: held from the check to the record of a write

	mu         sync.Mutex
	protected  map[name]protection
	containers map[string]containerDefault
}

// A name identifies a blob.
type name struct{ container, blob string }

// A containerDefault is the policy that blobs of a write-once container get
// when their upload names none.
type containerDefault struct {
	Mode Mode
	Days int
}

// New returns a proxy, with the policies of the journal if there is one.
func New(cfg Config) (*Proxy, error) {
	if cfg.Upstream == nil || cfg.Exists == nil {
		return nil, errors.New("write-once proxy: Upstream and Exists are required")
	}
	if cfg.Transport == nil {
		cfg.Transport = http.DefaultTransport
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Observe == nil {
		cfg.Observe = func(string) {}
	}
	p := &Proxy{
		cfg:        cfg,
		seed:       maphash.MakeSeed(),
		protected:  make(map[name]protection),
		containers: make(map[string]containerDefault),
	}
	p.forward = &httputil.ReverseProxy{
		Transport: cfg.Transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = cfg.Upstream.Scheme, cfg.Upstream.Host
			r.Out.Host = r.In.Host // part of host-style addresses
		},
		ModifyResponse: func(r *http.Response) error {
			if then, ok := r.Request.Context().Value(thenKey{}).(then); ok {
				return then(r)
			}
			return nil
		},
		ErrorLog: log.New(io.Discard, "", 0), // clients that go away in the middle of a download
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			refuse(w, r, failure{http.StatusBadGateway, "InternalError", err.Error()})
		},
	}
	if cfg.Journal != "" {
		j, err := openJournal(cfg.Journal, p.replay)
		if err != nil {
			return nil, fmt.Errorf("open journal %s: %w", cfg.Journal, err)
		}
		p.journal = j
	}
	return p, nil
}

// Close closes the journal. The proxy must not be serving any more.
func (p *Proxy) Close() error { return p.journal.close() }

// SetContainerDefault makes a container write-once: a blob uploaded without a
// policy of its own gets one of the given mode that ends the given number of
// days after the upload, and no blob of it can be overwritten. Blobs that are
// there already get no policy. In Azure this is a call to the management API.
// When it returns nil, the setting is in the journal.
func (p *Proxy) SetContainerDefault(container string, mode Mode, days int) error {
	if mode != Unlocked && mode != Locked {
		return fmt.Errorf("set default of container %s: unknown mode %q", container, mode)
	}
	if days < 1 || days > MaxDays {
		return fmt.Errorf("set default of container %s: %d days outside 1 to %d", container, days, MaxDays)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := containerDefault{mode, days}
	if was := p.containers[container]; was.Mode == Locked && (mode != Locked || days < was.Days) {
		return fmt.Errorf("set default of container %s: a locked policy can only be extended", container)
	}
	if err := p.journal.append(entry{Container: container, Mode: mode, Days: days}); err != nil {
		return fmt.Errorf("set default of container %s: %w", container, err)
	}
	p.containers[container] = now
	return nil
}

type thenKey struct{}

// then acts on the upstream's response before the client gets it.
type then func(*http.Response) error

func (p *Proxy) pass(w http.ResponseWriter, r *http.Request, t then) {
	if t != nil {
		r = r.WithContext(context.WithValue(r.Context(), thenKey{}, t))
	}
	p.forward.ServeHTTP(w, r)
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	t := targetOf(r)
	if t.comp == "batch" && r.Method == http.MethodPost {
		p.batch(w, r)
		return
	}
	p.cfg.Observe(t.kind(r.Method))
	switch {
	case r.URL.Query().Get("versionid") != "":
		refuse(w, r, failure{http.StatusNotImplemented, "APINotImplemented", "The emulator keeps no versions."})
	case t.blob == "" && t.restype == "container":
		p.container(w, r, t)
	case t.blob == "":
		p.pass(w, r, nil)
	case t.comp == "immutabilitypolicies" || t.comp == "legalhold":
		defer p.turn(t.name).Unlock()
		p.setProtection(w, r, t)
	case t.creates(r.Method):
		defer p.turn(t.name).Unlock()
		p.create(w, r, t)
	case t.changes(r.Method):
		defer p.turn(t.name).Unlock()
		p.change(w, r, t)
	default:
		p.pass(w, r, p.tell(t.name))
	}
}

// turn waits for the other writers of the blob and locks them out.
func (p *Proxy) turn(n name) *sync.Mutex {
	m := &p.turns[maphash.Comparable(p.seed, n)%uint64(len(p.turns))]
	m.Lock()
	return m
}

// container guards the deletion of a container. The data plane refuses it
// wherever version-level immutability is enabled on the container
// (https://github.com/Azure/azure-sdk-for-python/issues/22255).
func (p *Proxy) container(w http.ResponseWriter, r *http.Request, t target) {
	if r.Method != http.MethodDelete {
		p.pass(w, r, func(resp *http.Response) error {
			p.mu.Lock()
			defer p.mu.Unlock()
			if _, ok := p.containers[t.container]; ok && t.comp == "" && resp.StatusCode == http.StatusOK {
				resp.Header.Set("x-ms-immutable-storage-with-versioning-enabled", "true")
			}
			return nil
		})
		return
	}
	for i := range p.turns {
		p.turns[i].Lock()
		defer p.turns[i].Unlock()
	}
	if p.holdsProtected(t.container) {
		refuse(w, r, failure{http.StatusConflict, "ContainerImmutableStorageWithVersioningEnabled",
			"The requested operation is not allowed as the container has a immutable storage with versioning enabled."})
		return
	}
	p.pass(w, r, func(resp *http.Response) error {
		if resp.StatusCode != http.StatusAccepted {
			return nil
		}
		return p.forgetContainer(t.container)
	})
}

func (p *Proxy) holdsProtected(container string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.containers[container]; ok {
		return true
	}
	now := p.cfg.Now()
	for n, s := range p.protected {
		if n.container == container && (s.Hold || s.active(now)) {
			return true
		}
	}
	return false
}

func (p *Proxy) forgetContainer(container string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for n := range p.protected {
		if n.container != container {
			continue
		}
		if err := p.journal.append(entry{Container: n.container, Blob: n.blob}); err != nil {
			return err
		}
		delete(p.protected, n)
	}
	return nil
}
