import { Command, InvalidArgumentError, Option, type ErrorOptions } from 'commander';
import { ExitCode } from '../output/exit.js';

/** A command with an example, which tells everything that is wrong with its options at once; Commander itself stops at the first. */
export class CheckedCommand extends Command {
  private readonly requiredOptions: Option[] = [];
  private readonly dependents: { readonly option: Option; readonly needed: readonly Option[] }[] = [];
  private readonly problems: string[] = [];

  private exampleLine = '';

  override createCommand(name?: string): CheckedCommand {
    return new CheckedCommand(name);
  }

  /** Shows a command line that works below the help. */
  example(line: string): this {
    this.exampleLine = line;
    return this.addHelpText('after', `\nExample:\n  ${line}`);
  }

  /** The command line given to `example`; empty when there is none. */
  get exampleText(): string {
    return this.exampleLine;
  }

  override addOption(option: Option): this {
    if (option.mandatory) {
      option.makeOptionMandatory(false);
      option.description += ' (required)';
      this.requiredOptions.push(option);
    }
    const { parseArg } = option;
    if (parseArg !== undefined) {
      option.argParser((text, previous: unknown) => {
        try {
          return parseArg(text, previous);
        } catch (error) {
          if (!(error instanceof InvalidArgumentError)) throw error;
          this.problems.push(`${option.long ?? option.flags} ${text}: ${error.message}`);
          return previous;
        }
      });
    }
    return super.addOption(option);
  }

  /** An option that would do nothing without one of some others, given by their flags; told when it is given alone. */
  addDependent(option: Option, ...needed: readonly string[]): this {
    this.dependents.push({ option, needed: needed.map((flag) => new Option(flag)) });
    return this.addOption(option);
  }

  /** Ends with a usage error when an option is wrong or missing. */
  checkOptions(): void {
    for (const { option, needed } of this.dependents) {
      if (this.isGiven(option) && !needed.some((other) => this.isGiven(other))) {
        this.problems.push(`${option.long ?? option.flags} does nothing without ${needed.map(({ flags }) => flags).join(' or ')}.`);
      }
    }
    for (const option of this.requiredOptions) {
      if (this.getOptionValueSource(option.attributeName()) === undefined) this.problems.push(`${option.flags} is missing.`);
    }
    const last = this.problems.pop();
    if (last !== undefined) this.error(`error: ${last}`, { exitCode: ExitCode.USAGE, code: 'secateur.wrongOptions' });
  }

  private isGiven(option: Option): boolean {
    return this.getOptionValueSource(option.attributeName()) === 'cli';
  }

  /** Commander's way out of every usage error. */
  override error(message: string, options?: ErrorOptions): never {
    const earlier = this.problems.splice(0).map((problem) => `error: ${problem}`);
    return super.error([...earlier, message].join('\n'), options);
  }
}
