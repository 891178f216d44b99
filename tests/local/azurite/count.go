package azurite

import (
	"maps"
	"net/http"
	"strings"
	"sync"
)

// Kinds of table operation in [Account.Operations]. A transaction is one
// operation, however many changes it holds; so is a page of a query.
const (
	OpTablePut         = "table.put"
	OpTableGet         = "table.get"
	OpTableQuery       = "table.query"
	OpTableDelete      = "table.delete"
	OpTableTransaction = "table.transaction"
	OpTableOther       = "table.other"
)

// counts are operations by kind. The zero value is ready.
type counts struct {
	mu sync.Mutex
	of map[string]int64
}

func (c *counts) add(kind string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil {
		c.of = make(map[string]int64)
	}
	c.of[kind]++
}

func (c *counts) read() map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil {
		return map[string]int64{}
	}
	return maps.Clone(c.of)
}

func (c *counts) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.of = nil
}

// tableKind reads the operation off /account/rest, where rest is $batch,
// Tables…, Name, Name() or Name(PartitionKey='…',RowKey='…').
func tableKind(r *http.Request) string {
	_, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	table, keys, _ := strings.Cut(rest, "(")
	switch {
	case rest == "$batch":
		return OpTableTransaction
	case table == "" || table == "Tables" || r.URL.Query().Has("comp"):
		return OpTableOther
	case r.Method == http.MethodGet && len(keys) > len(")"):
		return OpTableGet
	case r.Method == http.MethodGet:
		return OpTableQuery
	case r.Method == http.MethodDelete:
		return OpTableDelete
	}
	return OpTablePut
}
