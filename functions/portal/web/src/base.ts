/** Where the portal stands on its origin, with a slash at the end: /steno/. */
export const base = import.meta.env.BASE_URL;

/** An address below base, for the router and for requests. */
export const at = (path: string) => base + path.replace(/^\//, "");
