package retention

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"steno/shared/custody"
	"steno/shared/policy"
)

// building is how long what belongs to an order that is not finished is left alone: no
// build lasts longer, and what a build that died left behind is nobody's.
const building = 24 * time.Hour

// expirePackages destroys the export packages whose time is over, and what builds that died
// left behind.
func (p *pass) expirePackages(ctx context.Context) error {
	return p.expire(ctx, func(o policy.ExportOrder) bool { return !p.now.Before(o.Expires) })
}

// recall destroys the packages that hold a conversation which is being erased: a copy that
// stays makes no erasure. What was fetched before is out of reach.
func (p *pass) recall(ctx context.Context, conversation string) error {
	return p.expire(ctx, func(o policy.ExportOrder) bool { return slices.Contains(o.Conversations, conversation) })
}

func (p *pass) expire(ctx context.Context, over func(policy.ExportOrder) bool) error {
	orders, err := p.s.Exports.List(ctx)
	if err != nil {
		return fmt.Errorf("read exports: %w", err)
	}
	keep := map[string]bool{}
	var faults []error
	for _, o := range orders {
		switch {
		case o.State == policy.ExportReady && over(o):
			// The order says first that there is nothing to fetch any more.
			o.State = policy.ExportExpired
			if err := p.s.Exports.Replace(ctx, o); err != nil {
				faults = append(faults, fmt.Errorf("expire export %s: %w", o.ID, err))
				keep[o.Unit] = true
			}
		case o.State == policy.ExportReady:
			keep[o.Unit] = true
		case p.now.Before(o.MadeAt.Add(building)):
			keep["export-"+o.ID] = true
		}
	}
	objects, err := p.s.Packages.Objects.List(ctx, string(p.c.Tenant)+"/")
	if err != nil {
		return errors.Join(append(faults, fmt.Errorf("list export packages: %w", err))...)
	}
	done := map[string]bool{}
	for _, o := range objects {
		unit, _, _ := strings.Cut(strings.TrimPrefix(o.Name, string(p.c.Tenant)+"/"), "/")
		order := unit[:min(len(unit), len("export-")+32)]
		if done[unit] || keep[unit] || keep[order] {
			continue
		}
		done[unit] = true
		if err := p.destroyPackage(ctx, unit); err != nil {
			faults = append(faults, fmt.Errorf("expire package %s: %w", unit, err))
		}
	}
	return errors.Join(faults...)
}

// destroyPackage destroys the keys of a package, and then its parts.
func (p *pass) destroyPackage(ctx context.Context, unit string) error {
	if _, err := p.record(ctx, custody.Event{Action: custody.PackageExpired, Item: unit}); err != nil {
		return err
	}
	free := func(context.Context) error { return nil } // a package is a copy; holds are on evidence
	if err := p.s.Packages.Shred(ctx, p.c.Tenant, unit, free); err != nil {
		return err
	}
	_, _, err := p.s.Packages.Sweep(ctx, p.c.Tenant, unit, free)
	return err
}
