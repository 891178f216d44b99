import {
  type AccountInfo,
  AuthError,
  CacheLookupPolicy,
  type Configuration,
  InteractionRequiredAuthError,
  ProtocolMode,
  PublicClientApplication,
} from "@azure/msal-browser";
import { at, base } from "./base";

interface PublicConfig {
  authority: string;
  clientId: string;
  scope: string;
}

/** The hosts of Entra's clouds. Any other authority is spoken to as plain OpenID Connect. */
const entraHosts = ["login.microsoftonline.com", "login.microsoftonline.us", "login.partner.microsoftonline.cn"];

function msalConfig(c: PublicConfig): Configuration {
  const authority = new URL(c.authority);
  const entra = entraHosts.includes(authority.host);
  return {
    auth: {
      clientId: c.clientId,
      // In OIDC mode the library asks for metadata right below the authority; Entra publishes it below /v2.0.
      authority: entra ? c.authority : c.authority + "/v2.0",
      knownAuthorities: [authority.host],
      redirectUri: location.origin + base,
      postLogoutRedirectUri: location.origin + base,
    },
    cache: { cacheLocation: "sessionStorage" },
    system: { protocolMode: entra ? ProtocolMode.AAD : ProtocolMode.OIDC },
  };
}

/** Who is signed in, and the tokens that she asks with. */
export class SignIn {
  private constructor(
    private readonly client: PublicClientApplication,
    private readonly scope: string,
  ) {}

  /** Reads where to sign in, and ends a sign-in that comes back in the address. */
  static async start(): Promise<SignIn> {
    const response = await fetch(at("config.json"), { cache: "no-store", credentials: "omit" });
    if (!response.ok) throw new Error(`config.json: status ${response.status}`);
    const config = (await response.json()) as PublicConfig;
    const client = new PublicClientApplication(msalConfig(config));
    await client.initialize();
    const result = await client.handleRedirectPromise();
    if (result) client.setActiveAccount(result.account);
    return new SignIn(client, config.scope);
  }

  account(): AccountInfo | null {
    return this.client.getActiveAccount() ?? this.client.getAllAccounts()[0] ?? null;
  }

  /** Leaves the page; the sign-in comes back to the same address. */
  async signIn(): Promise<void> {
    const hint = this.account()?.username;
    await this.client.loginRedirect({ scopes: [this.scope], ...(hint ? { loginHint: hint } : { prompt: "select_account" }) });
  }

  async signOut(): Promise<void> {
    await this.client.logoutRedirect({ account: this.account() });
  }

  /**
   * An access token, or null when only a sign-in can give one. Tokens come from the cache or by refresh token,
   * never by a hidden frame: the policy of the pages frames nothing of another origin.
   */
  async token(fresh = false): Promise<string | null> {
    const account = this.account();
    if (!account) return null;
    try {
      const result = await this.client.acquireTokenSilent({
        account,
        scopes: [this.scope],
        cacheLookupPolicy: fresh ? CacheLookupPolicy.RefreshToken : CacheLookupPolicy.AccessTokenAndRefreshToken,
      });
      return result.accessToken;
    } catch (e) {
      if (e instanceof InteractionRequiredAuthError) return null;
      // A refresh token that is gone or was used up is answered with invalid_grant.
      if (e instanceof AuthError && ["invalid_grant", "no_tokens_found"].includes(e.errorCode)) return null;
      throw e;
    }
  }
}
