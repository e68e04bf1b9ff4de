# frozen_string_literal: true

require "mkmf"

# Not bare.c, which is a program.
$srcs = ["textbook.c"] # rubocop:disable Style/GlobalVars
create_makefile("textbook")
