package worm

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
)

// Limits of Blob Batch (https://learn.microsoft.com/rest/api/storageservices/blob-batch).
const (
	maxBatchItems = 256
	maxBatchBytes = 4 << 20
)

// batch answers Blob Batch by serving each item as a request of its own, which
// carries its own authorization, and collecting the answers.
func (p *Proxy) batch(w http.ResponseWriter, r *http.Request) {
	items, err := batchItems(r)
	if err != nil {
		refuse(w, r, failure{http.StatusBadRequest, "InvalidInput", err.Error()})
		return
	}
	var body bytes.Buffer
	out := multipart.NewWriter(&body)
	for _, item := range items {
		var got recorded
		p.ServeHTTP(&got, item.request)
		part, err := out.CreatePart(textproto.MIMEHeader{
			"Content-Type": {"application/http"},
			"Content-Id":   {item.id},
		})
		if err != nil {
			p.forward.ErrorHandler(w, r, err)
			return
		}
		// Writes into a bytes.Buffer cannot fail.
		fmt.Fprintf(part, "HTTP/1.1 %d %s\r\n", got.status, http.StatusText(got.status))
		_ = got.Header().Write(part)
		fmt.Fprintf(part, "\r\n%s", got.body.Bytes())
	}
	_ = out.Close()
	h := answer(w, r)
	h.Set("Content-Type", "multipart/mixed; boundary="+out.Boundary())
	w.WriteHeader(http.StatusAccepted)
	_, _ = w.Write(body.Bytes()) // a client that is gone needs no answer
}

type batchItem struct {
	id      string
	request *http.Request
}

func batchItems(r *http.Request) ([]batchItem, error) {
	_, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return nil, fmt.Errorf("content type of batch: %w", err)
	}
	in := multipart.NewReader(http.MaxBytesReader(nil, r.Body, maxBatchBytes), params["boundary"])
	var items []batchItem
	for {
		part, err := in.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("batch item %d: %w", len(items), err)
		}
		if len(items) == maxBatchItems {
			return nil, fmt.Errorf("batch of more than %d items", maxBatchItems)
		}
		req, err := http.ReadRequest(bufio.NewReader(part))
		if err != nil {
			return nil, fmt.Errorf("batch item %d: %w", len(items), err)
		}
		t := targetOf(req)
		if req.Method != http.MethodDelete && (req.Method != http.MethodPut || t.comp != "tier") {
			return nil, fmt.Errorf("batch item %d: %s is not allowed in a batch", len(items), req.Method)
		}
		req.Host = r.Host
		items = append(items, batchItem{part.Header.Get("Content-ID"), req.WithContext(r.Context())})
	}
	if len(items) == 0 {
		return nil, errors.New("batch without items")
	}
	return items, nil
}

// recorded is a response kept in memory.
type recorded struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorded) Header() http.Header {
	if r.header == nil {
		r.header = make(http.Header)
	}
	return r.header
}

func (r *recorded) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

func (r *recorded) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.body.Write(b)
}
