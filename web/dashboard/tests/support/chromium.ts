// The driver of Chromium is that of web/verify, as it was built: both packages are built together.
import type * as Driver from '../../../verify/build/tests/support/chromium.js';

const built = new URL('../../../../verify/build/tests/support/chromium.js', import.meta.url);

/** A headless Chromium, and `false` or why there is none. */
export const { Browser, skipBrowser }: typeof Driver = await import(built.href);
/** See {@link Browser}. */
export type Browser = Driver.Browser;
