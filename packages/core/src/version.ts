/** Version of all packages and of what they report. */
export const VERSION = '0.1.0';
