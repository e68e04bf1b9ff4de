# frozen_string_literal: true

def init
  super
  @page_title = @breadcrumb_title = @file.title if @file
end

# The list of classes has the guides too: see full_list_class.erb.
def menu_lists
  [{ type: "class", title: "Contents" }, { type: "method", title: "Methods" }]
end

# A text would have a list of texts beside it.
def layout = super.sub('src="file_list.html', 'src="class_list.html')
