// Package directory reads people and groups from Entra, and manages Graph's change
// notifications, through Microsoft's Graph SDK. It is the only package that imports the SDK: its models take minutes and
// gigabytes to compile, and everything else that is asked of Graph wants raw bytes.
package directory

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	abstractions "github.com/microsoft/kiota-abstractions-go"
	"github.com/microsoft/kiota-abstractions-go/serialization"
	auth "github.com/microsoft/kiota-authentication-azure-go"
	khttp "github.com/microsoft/kiota-http-go"
	kjson "github.com/microsoft/kiota-serialization-json-go"
	core "github.com/microsoftgraph/msgraph-sdk-go-core"
	"github.com/microsoftgraph/msgraph-sdk-go/groups"
	"github.com/microsoftgraph/msgraph-sdk-go/models"
	"github.com/microsoftgraph/msgraph-sdk-go/models/odataerrors"
	graphsubscriptions "github.com/microsoftgraph/msgraph-sdk-go/subscriptions"

	"steno/shared/teams"
)

// ErrNoGroup says that no group has this id or name, or more than one has the name.
var ErrNoGroup = errors.New("no such group")

// ErrPartial says that a listing of members could not be read to its end. What was
// read is not returned: a partial answer looks like people who left.
var ErrPartial = errors.New("members could not be read to the end")

// Directory reads groups and manages subscriptions. It is safe for use by many goroutines.
type Directory struct {
	groups        *groups.GroupsRequestBuilder
	subscriptions *graphsubscriptions.SubscriptionsRequestBuilder
	base          *url.URL
}

// registerSerializers tells kiota, once a process, how JSON is read and written.
var registerSerializers = sync.OnceFunc(func() {
	abstractions.RegisterDefaultDeserializer(func() serialization.ParseNodeFactory { return kjson.NewJsonParseNodeFactory() })
	abstractions.RegisterDefaultSerializer(func() serialization.SerializationWriterFactory { return kjson.NewJsonSerializationWriterFactory() })
})

// New returns the directory at baseURL (https://graph.microsoft.com/v1.0). client
// carries retries and the request budget; kiota's own retry handler is left out, since
// two of them multiply attempts.
func New(baseURL string, cred azcore.TokenCredential, client *http.Client) (*Directory, error) {
	base, err := url.Parse(baseURL)
	if err != nil || base.Scheme != "https" || base.Host == "" {
		return nil, errors.New("directory: base URL must be https")
	}
	registerSerializers()
	provider, err := auth.NewAzureIdentityAuthenticationProviderWithScopesAndValidHosts(
		cred, []string{"https://graph.microsoft.com/.default"}, []string{base.Hostname(), base.Host})
	if err != nil {
		return nil, fmt.Errorf("directory: %w", err)
	}
	decoded := &http.Client{
		Timeout:       client.Timeout,
		CheckRedirect: client.CheckRedirect,
		Transport:     khttp.NewCustomTransportWithParentTransport(client.Transport, khttp.NewParametersNameDecodingHandler()),
	}
	adapter, err := core.NewGraphRequestAdapterBaseWithParseNodeFactoryAndSerializationWriterFactoryAndHttpClient(
		provider, core.GraphClientOptions{GraphServiceVersion: "v1.0"}, nil, nil, decoded)
	if err != nil {
		return nil, fmt.Errorf("directory: %w", err)
	}
	root := strings.TrimSuffix(base.String(), "/")
	adapter.SetBaseUrl(root)
	return &Directory{
		groups:        groups.NewGroupsRequestBuilderInternal(map[string]string{"baseurl": root}, adapter),
		subscriptions: graphsubscriptions.NewSubscriptionsRequestBuilderInternal(map[string]string{"baseurl": root}, adapter),
		base:          base,
	}, nil
}

// FindGroup returns the one group with this display name.
func (d *Directory) FindGroup(ctx context.Context, name string) (teams.GroupID, error) {
	filter := "displayName eq '" + strings.ReplaceAll(name, "'", "''") + "'"
	top := int32(2)
	got, err := d.groups.Get(ctx, &groups.GroupsRequestBuilderGetRequestConfiguration{
		QueryParameters: &groups.GroupsRequestBuilderGetQueryParameters{
			Filter: &filter, Select: []string{"id", "displayName"}, Top: &top,
		},
	})
	if err != nil {
		return "", fmt.Errorf("find group by name: %w", plain(err))
	}
	found := got.GetValue()
	if len(found) != 1 || found[0].GetId() == nil {
		return "", fmt.Errorf("find group by name: %w (%d have it); use the object id", ErrNoGroup, len(found))
	}
	return teams.ParseGroupID(*found[0].GetId())
}

// memberPages bounds a listing: 1,000 pages of 999 members.
const memberPages = 1000

// Members returns all people in a group and in the groups inside it, without those
// that are not people. It reads /transitiveMembers without a cast or a filter:
// either would read an index that lags behind the directory.
// https://learn.microsoft.com/graph/api/group-list-transitivemembers
//
// Properties of people come with the same request by $select. That Graph serves
// properties of the derived type there was not tried against a live tenant.
func (d *Directory) Members(ctx context.Context, group teams.GroupID) ([]teams.User, error) {
	top := int32(999)
	page, err := d.groups.ByGroupId(string(group)).TransitiveMembers().Get(ctx, &groups.ItemTransitiveMembersRequestBuilderGetRequestConfiguration{
		QueryParameters: &groups.ItemTransitiveMembersRequestBuilderGetQueryParameters{
			Select: []string{"id", "displayName", "userPrincipalName", "mail", "accountEnabled", "userType", "assignedPlans"},
			Top:    &top,
		},
	})
	var users []teams.User
	seen := map[teams.PersonID]bool{}
	links := map[string]bool{}
	for n := 0; ; n++ {
		if err != nil {
			err = plain(err)
			var oe *Error
			if errors.As(err, &oe) && oe.Status == http.StatusNotFound {
				return nil, fmt.Errorf("read members of group %s: %w", group, ErrNoGroup)
			}
			return nil, fmt.Errorf("read members of group %s: %w", group, err)
		}
		for _, m := range page.GetValue() {
			u, ok := m.(models.Userable)
			if !ok {
				continue
			}
			user, err := userOf(u)
			if err != nil {
				return nil, fmt.Errorf("read members of group %s: %w", group, err)
			}
			if !seen[user.ID] {
				seen[user.ID] = true
				users = append(users, user)
			}
		}
		next := page.GetOdataNextLink()
		if next == nil || *next == "" {
			return users, nil
		}
		if n == memberPages || links[*next] || !d.ours(*next) {
			return nil, fmt.Errorf("read members of group %s: %w", group, ErrPartial)
		}
		links[*next] = true
		page, err = d.groups.ByGroupId(string(group)).TransitiveMembers().WithUrl(*next).Get(ctx, nil)
	}
}

// ours checks that a link stays at Graph, before the token goes there.
func (d *Directory) ours(link string) bool {
	u, err := url.Parse(link)
	return err == nil && u.Scheme == d.base.Scheme && strings.EqualFold(u.Host, d.base.Host) && u.User == nil
}

func userOf(u models.Userable) (teams.User, error) {
	id, err := teams.ParsePersonID(value(u.GetId()))
	if err != nil {
		return teams.User{}, err
	}
	out := teams.User{
		ID: id, DisplayName: value(u.GetDisplayName()), Address: value(u.GetUserPrincipalName()),
		Enabled: value(u.GetAccountEnabled()), Guest: strings.EqualFold(value(u.GetUserType()), "Guest"),
	}
	for _, p := range u.GetAssignedPlans() {
		if p.GetServicePlanId() != nil && strings.EqualFold(value(p.GetCapabilityStatus()), "Enabled") {
			out.ServicePlans = append(out.ServicePlans, strings.ToLower(p.GetServicePlanId().String()))
		}
	}
	return out, nil
}

func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// Error is an answer of Graph that is not a success, without the SDK's types.
type Error struct {
	Status int
	Code   string
}

func (e *Error) Error() string { return fmt.Sprintf("graph answered %d %s", e.Status, e.Code) }

// plain turns the SDK's error into one that does not print the request.
func plain(err error) error {
	var oe *odataerrors.ODataError
	if !errors.As(err, &oe) {
		return err
	}
	e := &Error{Status: oe.GetStatusCode()}
	if oe.GetErrorEscaped() != nil {
		e.Code = value(oe.GetErrorEscaped().GetCode())
	}
	return e
}
