/** Whether a token is a JSON Web Token, and of which issuer it says to be; nothing of it is verified here. */
import { decodeJwt } from 'jose';

export function issuerOfToken(token: string): string | undefined {
  try {
    return decodeJwt(token).iss ?? '';
  } catch {
    return undefined;
  }
}
