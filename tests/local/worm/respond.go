package worm

import (
	"crypto/rand"
	"encoding/xml"
	"io"
	"net/http"
)

// A failure is an error answer of the Blob service.
type failure struct {
	status  int
	code    string // x-ms-error-code
	message string
}

// answer prepares the headers that every answer of the service has.
func answer(w http.ResponseWriter, r *http.Request) http.Header {
	h := w.Header()
	h.Set("x-ms-request-id", rand.Text())
	if v := r.Header.Get("x-ms-version"); v != "" {
		h.Set("x-ms-version", v)
	}
	if id := r.Header.Get("x-ms-client-request-id"); id != "" {
		h.Set("x-ms-client-request-id", id)
	}
	return h
}

// refuse answers with a failure, in the form of
// https://learn.microsoft.com/rest/api/storageservices/status-and-error-codes2.
// What the client still sends is read, so that it gets to see the answer; a
// client that is gone by then is no concern of the answer's.
func refuse(w http.ResponseWriter, r *http.Request, f failure) {
	_, _ = io.Copy(io.Discard, r.Body)
	h := answer(w, r)
	h.Set("x-ms-error-code", f.code)
	h.Set("Content-Type", "application/xml")
	w.WriteHeader(f.status)
	if r.Method == http.MethodHead {
		return
	}
	body := struct {
		XMLName xml.Name `xml:"Error"`
		Code    string
		Message string
	}{Code: f.code, Message: f.message}
	_, _ = io.WriteString(w, xml.Header)
	_ = xml.NewEncoder(w).Encode(body)
}

// A relay passes a response on unless, by the time its header comes, drop is
// set: then all of it is dropped.
type relay struct {
	http.ResponseWriter
	drop   *bool
	header http.Header
}

func (r *relay) Header() http.Header {
	if r.header == nil {
		r.header = make(http.Header)
	}
	return r.header
}

func (r *relay) WriteHeader(status int) {
	if *r.drop {
		return
	}
	for k, v := range r.Header() {
		r.ResponseWriter.Header()[k] = v
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *relay) Write(b []byte) (int, error) {
	if *r.drop {
		return len(b), nil
	}
	return r.ResponseWriter.Write(b)
}
