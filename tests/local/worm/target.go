package worm

import (
	"net"
	"net/http"
	"strings"
)

// Kinds of storage operation that Config.Observe is told of. They follow what
// Azure bills apart: OpPut is every write of content, OpOther the rest. Each
// item of a batch is one operation.
const (
	OpPut    = "blob.put"
	OpGet    = "blob.get"
	OpHead   = "blob.head"
	OpList   = "blob.list"
	OpDelete = "blob.delete"
	OpOther  = "blob.other"
)

// A target is what a request is about.
type target struct {
	name
	comp     string // lower case
	restype  string
	snapshot bool
}

// targetOf reads both forms of address: http://127.0.0.1:1/account/container/blob
// and http://account.blob.localhost:1/container/blob.
func targetOf(r *http.Request) target {
	q := r.URL.Query()
	t := target{
		comp:     strings.ToLower(q.Get("comp")),
		restype:  strings.ToLower(q.Get("restype")),
		snapshot: q.Get("snapshot") != "",
	}
	path := strings.TrimPrefix(r.URL.Path, "/")
	if !hostStyle(r.Host) {
		_, path, _ = strings.Cut(path, "/")
	}
	t.container, t.blob, _ = strings.Cut(path, "/")
	return t
}

func hostStyle(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return net.ParseIP(host) == nil && strings.Contains(host, ".")
}

// creates reports whether the request makes new content of the blob: Put Blob,
// Put Block List, Put Blob From URL or Copy Blob.
func (t target) creates(method string) bool {
	return method == http.MethodPut && (t.comp == "" || t.comp == "blocklist")
}

// changes reports whether the request is one that a policy may prohibit, other
// than creating.
func (t target) changes(method string) bool {
	if method == http.MethodDelete {
		return t.comp == "" && !t.snapshot
	}
	return method == http.MethodPut && (t.comp == "appendblock" || t.rewrites())
}

// rewrites reports whether the request is one that even an expired policy
// prohibits: Set Blob Metadata and Put Page.
func (t target) rewrites() bool { return t.comp == "metadata" || t.comp == "page" }

func (t target) kind(method string) string {
	switch {
	case method == http.MethodGet && t.comp == "list":
		return OpList
	case t.blob == "":
		return OpOther
	case method == http.MethodHead:
		return OpHead
	case method == http.MethodGet && t.comp == "":
		return OpGet
	case method == http.MethodDelete && t.comp == "":
		return OpDelete
	case t.creates(method), method == http.MethodPut && (t.comp == "block" || t.comp == "appendblock" || t.comp == "page"):
		return OpPut
	}
	return OpOther
}
