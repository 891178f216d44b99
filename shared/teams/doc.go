// Package teams is the vocabulary of Microsoft Teams and Entra that every other
// package speaks: tenants, people, threads, messages. It imports the standard
// library alone and decides nothing.
//
// Identifiers are distinct string types so that a thread can never be passed
// where a person is meant. They come from outside, so each has a Parse function
// that refuses anything that could be a path, a query or a log line of its own;
// a value made by Parse may be put into a URL path segment after escaping.
//
// Identifiers of people and threads print as a short keyed pseudonym in logs
// (slog.LogValuer): two lines about one person can be joined, the person cannot
// be read from them. Use String only where the identifier itself is the data.
package teams
