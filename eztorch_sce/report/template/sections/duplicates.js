page.section("duplicates", (root) => records.fill(root));
