package world

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"steno/shared/azure"
	"steno/shared/coverage"
	"steno/shared/teams"
	"steno/tests/sim"
)

// CoverageReport is what the coverage statements say of a check, and how that compares with
// the tenant.
type CoverageReport struct {
	Days   int              `json:"days"`
	Totals []coverage.Total `json:"totals"` // over all days
	Late   int64            `json:"late"`
	// Stays and Gaps are what the tenant knows: stretches in which recorded users were in calls
	// of which Graph has a record, and those of them that no recorder was invited to.
	Stays int `json:"staysInTenant"`
	Gaps  int `json:"gapsInTenant"`
	// Faults are statements that do not say what the tenant knows.
	Faults []string `json:"faults,omitempty"`
}

// OK reports whether every statement is signed and says what the tenant knows.
func (r CoverageReport) OK() bool { return r.Days > 0 && len(r.Faults) == 0 && r.Late == 0 }

// Statements opens the coverage statements.
func (w *World) Statements() (*azure.Statements, error) {
	c, err := container.NewClient(w.Storage.BlobURL+"/"+Coverage, w.Credential, &container.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: w.CA.Client()}})
	if err != nil {
		return nil, err
	}
	return azure.NewStatements(teams.TenantID(w.Tenant.ID()), c), nil
}

// CheckCoverage has the coverage stated and holds the newest statement of each day against
// the tenant's truth. readUntil is when the last export began.
func (w *World) CheckCoverage(ctx context.Context, calls []*sim.Call, readUntil time.Time) (r CoverageReport, err error) {
	if err := w.Host.RunTimer(ctx, "reconcile"); err != nil {
		return r, err
	}
	store, err := w.Statements()
	if err != nil {
		return r, err
	}
	signer, err := w.Signer()
	if err != nil {
		return r, err
	}
	_, key, err := signer.SigningKey(ctx)
	if err != nil {
		return r, err
	}
	list, err := store.List(ctx, "2000-01-01", "2199-12-31")
	if err != nil {
		return r, err
	}
	newest := map[string]coverage.Stated{}
	for _, n := range list {
		newest[n.Day] = n
	}
	all := coverage.Statement{}
	failed := map[teams.PersonID]int64{}
	for _, n := range newest {
		s, err := statementOf(ctx, store, n, key)
		if err != nil {
			return r, err
		}
		r.Days++
		r.Late += s.Second.Late
		all.Lines = append(all.Lines, s.Lines...)
		for _, t := range s.Totals {
			if t.Unit == coverage.Seconds && s.To.Before(readUntil) && !t.Whole() {
				r.Faults = append(r.Faults, fmt.Sprintf("%s of %s was read before and has %d seconds that nobody read", t.Modality, s.Day, t.Failed+t.Unknown))
			}
		}
		for _, l := range s.Lines {
			if l.Modality == coverage.Calls {
				failed[l.Custodian] += l.Failed
			}
		}
	}
	all.Sum()
	r.Totals = all.Totals
	w.compareStays(calls, failed, &r)
	return r, nil
}

// Match holds the totals against what was found in the archive: every version is somebody's, and
// every file that was fetched, or is a gap, is counted once.
func (r *CoverageReport) Match(archive Report, files FilesReport) {
	sums := map[coverage.Unit]coverage.Count{}
	for _, t := range r.Totals {
		c := sums[t.Unit]
		c.Add(t.Count)
		sums[t.Unit] = c
	}
	if n := sums[coverage.Versions]; n.Expected < int64(archive.Archived) {
		r.Faults = append(r.Faults, fmt.Sprintf("the statements know of %d versions; the archive has %d", n.Expected, archive.Archived))
	}
	if n := sums[coverage.Items]; n.Expected != int64(files.Expected) || n.Captured != int64(files.Fetched) {
		r.Faults = append(r.Faults, fmt.Sprintf("the statements know of %d files, %d of them captured; the archive has %d and %d", n.Expected, n.Captured, files.Expected, files.Fetched))
	}
}

// statementOf reads a statement and verifies its signature.
func statementOf(ctx context.Context, store *azure.Statements, n coverage.Stated, key *ecdsa.PublicKey) (coverage.Statement, error) {
	body, signature, err := store.Read(ctx, n)
	if err != nil {
		return coverage.Statement{}, err
	}
	digest := sha256.Sum256(body)
	if !ecdsa.VerifyASN1(key, digest[:], signature) {
		return coverage.Statement{}, errors.New("a coverage statement is not signed by the vault's key")
	}
	return coverage.Decode(body)
}

// compareStays counts what the tenant knows of calls, and compares the gaps.
func (w *World) compareStays(calls []*sim.Call, failed map[teams.PersonID]int64, r *CoverageReport) {
	recorded := append(w.Tenant.UsersIn(sim.RecordedEquities), w.Tenant.UsersIn(sim.RecordedRates)...)
	gaps := map[teams.PersonID]int64{}
	for _, c := range calls {
		invited := map[sim.PersonID]bool{}
		for _, l := range c.Legs() {
			invited[l.Recorded] = true
		}
		for _, s := range c.Stays() {
			if !slices.Contains(recorded, s.Person) {
				continue
			}
			r.Stays++
			if !invited[s.Person] && !s.Failed {
				r.Gaps++
				gaps[teams.PersonID(s.Person)]++
			}
		}
	}
	for p, n := range gaps {
		if failed[p] != n {
			r.Faults = append(r.Faults, fmt.Sprintf("a recorded user was in %d calls without a recorder; the statements have %d gaps", n, failed[p]))
		}
	}
	for p, n := range failed {
		if gaps[p] == 0 && n > 0 {
			r.Faults = append(r.Faults, fmt.Sprintf("the statements have %d gaps of somebody whose calls were all recorded", n))
		}
	}
	for _, t := range r.Totals {
		if t.Modality == coverage.Calls && t.Expected != int64(r.Stays) {
			r.Faults = append(r.Faults, fmt.Sprintf("the statements expect %d stays in calls; the tenant has %d", t.Expected, r.Stays))
		}
	}
}
