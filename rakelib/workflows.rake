# frozen_string_literal: true

ZIZMOR = "tmp/lint/bin/zizmor"

# Skipped where it cannot be had, but never where the workflows run.
def workflow_linter(program, *args)
  return sh(program, *args) if system(program, "--version", out: File::NULL)

  message = "#{program.pathmap("%n")} is not installed: the workflows are not checked with it"
  ENV["GITHUB_ACTIONS"] ? abort(message) : warn(message)
end

file ZIZMOR => ".github/requirements.txt" do |task|
  system("python3", "-m", "venv", "--clear", "tmp/lint") &&
    system(*%w[tmp/lint/bin/pip install --quiet --retries 1 --require-hashes --requirement], task.source) &&
    touch(ZIZMOR, verbose: false)
end

namespace :lint do
  desc "Check the workflows: their form with yamllint, their safety with zizmor"
  task workflows: ZIZMOR do
    files = FileList[".github/dependabot.yml", ".github/{actions/*,workflows}/*.yml"]
    workflow_linter("yamllint", "--strict", "--config-file", ".github/yamllint.yml", *files)
    workflow_linter(ZIZMOR, "--offline", "--quiet", "--persona=auditor", ".github")
  end
end

task lint: "lint:workflows"
