/** What has to be there. @template Value @param {Value | undefined} value @param {string} name for the error @returns {Value} */
export function need(value, name) {
  if (value === undefined) throw new Error(`There is no ${name}.`);
  return value;
}
