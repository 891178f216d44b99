// Package bearer verifies the signed tokens that callers present: Entra access tokens
// and those of Teams' calling service. It holds what is the same at every door, a strict
// reading of compact JWS (RFC 7515) and a cache of one issuer's keys; what a claim must
// say is the door's own business.
//
// One Keys belongs to one issuer, and no key set is shared: a token that one issuer
// signed is worth nothing where another's is asked for. Nothing in a token decides which
// algorithm, which key set or which address is used.
package bearer
