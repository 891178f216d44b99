// Package msgraph speaks to Microsoft Graph over HTTP: tokens, the request budget,
// retries, paging, and pages as raw bytes. It holds no models: a message is kept as
// Graph sent it, and models lose bytes.
//
// Every request goes to the one configured base URL. A nextLink that leads anywhere
// else is refused before a connection is made, so that the bearer token is seen by no
// other host; redirects are not followed at all.
package msgraph
