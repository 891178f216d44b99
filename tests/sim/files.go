package sim

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// FileFate is what becomes of those who ask for a file.
type FileFate string

// The fates. Which one a file has its address decides.
const (
	FileServed    FileFate = ""
	FileGone      FileFate = "gone"      // deleted since: 404
	FileForbidden FileFate = "forbidden" // 403
	FileLocked    FileFate = "locked"    // 423
	FileExternal  FileFate = "external"  // in another organization's drive: 403
	FileAstray    FileFate = "astray"    // the answer leads to the instance metadata service
	FileEndless   FileFate = "endless"   // its bytes have no end, whatever its size is said to be
)

// The faults of downloads. Each spoils one; the next may be right.
const (
	WrongBytes Fault = "wrong bytes"    // a byte is another, so that the checksum does not fit
	BrokenFile Fault = "truncated file" // the connection ends in the middle
)

// FileFaults lists them.
func FileFaults() []Fault { return []Fault{WrongBytes, BrokenFile} }

// file is a document behind an address, with all its states, oldest first.
type file struct {
	address string
	id      string
	fate    FileFate
	trimmed bool // the library keeps no earlier states
	states  []fileState
}

type fileState struct {
	modified int64
	size     int64
	seed     uint64
}

// driveID is that of the only drive there is.
const driveID = "b!sim-drive-0001"

// share is what the client does when a message with a file is sent: the file is uploaded, or
// uploaded again, just before; some are changed soon after. The caller holds the lock.
func (t *Tenant) share(address string, at int64, outside bool) {
	if t.docs == nil {
		t.docs = map[string]*file{}
	}
	f := t.docs[address]
	h := mix(address, 0)
	if f == nil {
		f = &file{address: address, id: fmt.Sprintf("01SIM%016X", h), trimmed: h>>8%8 == 0, fate: fateOf(h)}
		if outside {
			f.fate = FileExternal
		}
		t.docs[address] = f
	}
	write := func(when int64) {
		if n := len(f.states); n > 0 {
			when = max(when, f.states[n-1].modified+1)
		}
		s := mix(address, when)
		size := int64(1 + s%(200<<10))
		if s%23 == 0 {
			size = 9<<20 + int64(s%4096) // in parts
		}
		f.states = append(f.states, fileState{when, size, s})
	}
	if len(f.states) == 0 || mix(address, at)%2 == 0 {
		write(at - 1)
	}
	if mix(address, at)%3 == 0 {
		write(at + 1000) // it goes on changing
	}
}

// fateOf draws a file's fate from its address.
func fateOf(h uint64) FileFate {
	switch h >> 16 % 24 {
	case 0:
		return FileGone
	case 1:
		return FileForbidden
	case 2:
		return FileLocked
	case 3:
		return FileAstray
	case 4:
		return FileEndless
	}
	return FileServed
}

func (s fileState) bytes() []byte {
	b := make([]byte, s.size)
	r := rand.NewChaCha8([32]byte(binary.LittleEndian.AppendUint64(make([]byte, 24, 32), s.seed)))
	_, _ = r.Read(b) // never fails
	return b
}

// FileTruth is what is true of something that a message points at.
type FileTruth struct {
	Fate FileFate
	// Bytes are those it had when the message was sent, or where no state of that time is
	// kept any more those it has now.
	Bytes []byte
}

// FileTruth tells what stands behind the address of a file, for a message that was sent at a time.
// ok is false if there is none.
func (t *Tenant) FileTruth(address string, sent time.Time) (truth FileTruth, ok bool) {
	t.mu.Lock()
	f := t.docs[address]
	if f == nil {
		t.mu.Unlock()
		return FileTruth{}, false
	}
	state := f.states[len(f.states)-1]
	if !f.trimmed {
		for _, s := range slices.Backward(f.states) {
			if s.modified <= sent.UnixMilli() {
				state = s
				break
			}
		}
	}
	fate := f.fate
	t.mu.Unlock()
	return FileTruth{fate, state.bytes()}, true
}

// HostedTruth is what Teams hosts under the address of an image.
func HostedTruth(address string) []byte {
	_, id, _ := strings.Cut(address, "/hostedContents/")
	id = strings.TrimSuffix(id, "/$value")
	s := fileState{size: 500 + int64(mix(id, 0)%4000), seed: mix(id, 1)}
	return append([]byte("\x89PNG\r\n\x1a\n"), s.bytes()...)
}

// fileByID is the file behind a path of /drives, nil if there is none.
func (t *Tenant) fileByID(drive, id string) *file {
	t.mu.Lock()
	defer t.mu.Unlock()
	if drive != driveID {
		return nil
	}
	for _, f := range t.docs {
		if f.id == id {
			return f
		}
	}
	return nil
}

// snapshot copies the states, which live traffic adds to.
func (t *Tenant) snapshot(f *file) []fileState {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(f.states)
}

// serveShared is https://learn.microsoft.com/en-us/graph/api/shares-get.
func (t *Tenant) serveShared(q *request) {
	token, ok := strings.CutPrefix(q.params[0], "u!")
	b, err := base64.RawURLEncoding.DecodeString(token)
	if !ok || err != nil {
		q.fail(t, http.StatusBadRequest, "invalidRequest", "The sharing token is malformed.")
		return
	}
	address, err := url.PathUnescape(string(b))
	if err != nil {
		address = string(b)
	}
	t.mu.Lock()
	f := t.docs[address]
	t.mu.Unlock()
	switch {
	case f == nil:
		q.fail(t, http.StatusNotFound, "itemNotFound", "The resource could not be found.")
	case f.fate == FileGone:
		q.fail(t, http.StatusNotFound, "itemNotFound", "The resource could not be found.")
	case f.fate == FileForbidden, f.fate == FileExternal:
		q.fail(t, http.StatusForbidden, "accessDenied", "The sharing link no longer exists, or you do not have permission to access it.")
	default:
		q.json(http.StatusOK, t.item(f))
	}
}

// item is a driveItem as it is now. An endless file is said to be small and has no checksum.
func (t *Tenant) item(f *file) map[string]any {
	states := t.snapshot(f)
	n := len(states)
	cur := states[n-1]
	file := map[string]any{"mimeType": "application/octet-stream"}
	if f.fate != FileEndless {
		file["hashes"] = map[string]string{"quickXorHash": quickXorHash(cur.bytes())}
	}
	return map[string]any{
		"@odata.context": odataContext + "shares('x')/driveItem/$entity", "id": f.id, "name": f.address[strings.LastIndexByte(f.address, '/')+1:],
		"size": cur.size, "eTag": fmt.Sprintf("\"{%s},%d\"", f.id, n), "cTag": fmt.Sprintf("\"c:{%s},%d\"", f.id, n),
		"lastModifiedDateTime": stamp(millis(cur.modified)), "parentReference": map[string]string{"driveId": driveID, "driveType": "business"}, "file": file,
	}
}

// serveVersions is https://learn.microsoft.com/en-us/graph/api/driveitem-list-versions, two
// on a page.
func (t *Tenant) serveVersions(q *request) {
	f := t.fileByID(q.params[0], q.params[1])
	if f == nil {
		q.fail(t, http.StatusNotFound, "itemNotFound", "The resource could not be found.")
		return
	}
	states := t.snapshot(f)
	var all []map[string]any
	for i, s := range slices.Backward(states) {
		if f.trimmed && i < len(states)-1 {
			break
		}
		all = append(all, map[string]any{"id": fmt.Sprintf("%d.0", i+1), "lastModifiedDateTime": stamp(millis(s.modified)), "size": s.size})
	}
	skip, _ := strconv.Atoi(q.query.Get("$skiptoken")) // none is 0
	skip = min(max(skip, 0), len(all))
	page := all[skip:min(skip+2, len(all))]
	body := map[string]any{"value": page}
	if skip+2 < len(all) {
		body["@odata.nextLink"] = t.link(q, "/drives/"+driveID+"/items/"+f.id+"/versions", "$skiptoken="+strconv.Itoa(skip+2))
	}
	q.json(http.StatusOK, body)
}

// serveContent is https://learn.microsoft.com/en-us/graph/api/driveitem-get-content: an address
// that carries its own authorization.
func (t *Tenant) serveContent(q *request) {
	f := t.fileByID(q.params[0], q.params[1])
	if f == nil {
		q.fail(t, http.StatusNotFound, "itemNotFound", "The resource could not be found.")
		return
	}
	n := len(t.snapshot(f))
	if len(q.params) == 3 {
		v, err := strconv.ParseFloat(q.params[2], 64)
		if n = int(v); err != nil || n < 1 || n > len(t.snapshot(f)) || n == len(t.snapshot(f)) {
			// Of the current version the content is not had under its number.
			q.fail(t, http.StatusBadRequest, "invalidRequest", "You cannot get the content of the current version.")
			return
		}
	}
	switch f.fate {
	case FileLocked:
		q.fail(t, http.StatusLocked, "resourceLocked", "The resource is locked.")
	case FileAstray:
		q.redirect("https://169.254.169.254/metadata/instance?api-version=2021-02-01")
	default:
		origin := t.cfg.FilesURL
		if origin == "" {
			origin = t.base(q)
		}
		q.redirect(fmt.Sprintf("%s/download/%s/%d?tempauth=%x", origin, f.id, n, mix(f.id, int64(n))))
	}
}

func (q *request) redirect(to string) {
	q.w.Header().Set("Location", to)
	q.w.WriteHeader(http.StatusFound)
}

// Downloads serves the bytes of files, at an origin of its own. It wants no token, and takes
// note of those that are sent to it.
func (t *Tenant) Downloads() http.Handler { return http.HandlerFunc(t.serveDownload) }

// LeakedTokens is how often a download came with a token, which belongs to Graph alone.
func (t *Tenant) LeakedTokens() int {
	t.hosted.mu.Lock()
	defer t.hosted.mu.Unlock()
	return t.hosted.leaked
}

func (t *Tenant) serveDownload(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "" {
		t.hosted.mu.Lock()
		t.hosted.leaked++
		t.hosted.mu.Unlock()
	}
	words := strings.Split(strings.TrimPrefix(r.URL.Path, "/download/"), "/")
	n := 0
	var f *file
	if len(words) == 2 {
		n, _ = strconv.Atoi(words[1]) // 0 is no state
		f = t.fileByID(driveID, words[0])
	}
	if f == nil || n < 1 || n > len(t.snapshot(f)) || r.URL.Query().Get("tempauth") != fmt.Sprintf("%x", mix(f.id, int64(n))) {
		http.Error(w, "unauthenticated", http.StatusUnauthorized)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	states := t.snapshot(f)
	b := states[n-1].bytes()
	switch {
	case f.fate == FileEndless:
		for {
			if _, err := w.Write(b); err != nil {
				return // the client has heard enough
			}
		}
	case n == len(states) && t.faults.due(WrongBytes): // of earlier states nobody knows the checksum
		b[len(b)/2] ^= 1
	case t.faults.due(BrokenFile):
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		_, _ = w.Write(b[:len(b)/2]) // it breaks off in any case
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
}

// hosting is what is known of requests for hosted content.
type hosting struct {
	mu        sync.Mutex
	last      map[string]time.Time
	throttled int
	leaked    int
}

// serveHosted is https://learn.microsoft.com/en-us/graph/api/chatmessagehostedcontent-get, with
// its one request a second in a chat.
func (t *Tenant) serveHosted(q *request) {
	chat := q.params[0]
	if strings.HasPrefix(q.named, "/teams/") {
		chat = q.params[1]
	}
	id := q.params[len(q.params)-1]
	t.hosted.mu.Lock()
	if t.hosted.last == nil {
		t.hosted.last = map[string]time.Time{}
	}
	soon := t.now().Sub(t.hosted.last[chat]) < time.Second
	if soon {
		t.hosted.throttled++
	} else {
		t.hosted.last[chat] = t.now()
	}
	t.hosted.mu.Unlock()
	if soon {
		q.throttle(t)
		return
	}
	message, err := strconv.ParseInt(q.params[len(q.params)-2], 10, 64)
	t.mu.Lock()
	th := t.byThread[ThreadID(chat)]
	there := false
	if err == nil && th != nil && th.byID[message] != nil && th.byID[message].current().cause != deleted {
		for _, v := range th.byID[message].versions {
			there = there || bytes.Contains(v.body, []byte("/hostedContents/"+id+"/"))
		}
	}
	t.mu.Unlock()
	if !there {
		q.fail(t, http.StatusNotFound, "NotFound", "NotFound")
		return
	}
	q.w.Header().Set("Content-Type", "image/png")
	_, _ = q.w.Write(HostedTruth("/hostedContents/" + id + "/$value")) // the client is gone if this fails
}

// HostedThrottled is how often a chat was asked for hosted content twice within a second.
func (t *Tenant) HostedThrottled() int {
	t.hosted.mu.Lock()
	defer t.hosted.mu.Unlock()
	return t.hosted.throttled
}

// quickXorHash is Microsoft's checksum, as its definition has it: each byte, shifted to 11 times
// its number in a ring of 160 bits.
// https://learn.microsoft.com/en-us/onedrive/developer/code-snippets/quickxorhash
func quickXorHash(b []byte) string {
	const bits = 160
	ring := make([]big.Int, bits) // by position: a byte stands at one of 160
	var folded [bits]byte
	for i, c := range b {
		folded[i*11%bits] ^= c
	}
	var sum big.Int
	for at, c := range folded {
		ring[at].Lsh(big.NewInt(int64(c)), uint(at))
		sum.Xor(&sum, &ring[at])
	}
	over := new(big.Int).Rsh(&sum, bits)
	sum.And(&sum, new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), bits), big.NewInt(1)))
	sum.Xor(&sum, over)
	out := sum.FillBytes(make([]byte, bits/8))
	slices.Reverse(out)
	length := binary.LittleEndian.AppendUint64(nil, uint64(len(b)))
	for i, c := range length {
		out[len(out)-len(length)+i] ^= c
	}
	return base64.StdEncoding.EncodeToString(out)
}
