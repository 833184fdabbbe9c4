export { addTokenEntry } from './add-token-entry.js';
export { auditActions, type AuditActions, type AuditedAction } from './audit.js';
export { checkTokenOwner, newToken } from './new-token.js';
export { USER_ROLES, type UserRole } from './roles.js';
export { createServiceLogger } from './service-logger.js';
export { openServiceSecurity, type ServiceSecurity, type ServiceSecurityOptions, type TokenOptions } from './service-security.js';
