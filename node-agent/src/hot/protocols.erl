%% Puts the consolidated protocols of the release that runs now in the place of the earlier ones, and loads those that are
%% others than the loaded ones: an install loads the protocols of the libraries, and knows nothing of consolidated ones.
%% Given: New, To.
case filelib:is_dir(New) of
    false -> none;
    true ->
        Of = fun(Path) ->
            case lists:reverse(filename:split(Path)) of
                ["consolidated", Version, "releases" | _] -> Version;
                _ -> none
            end
        end,
        Path = code:get_path(),
        Mine = [It || It <- Path, Of(It) =:= To],
        case {Mine, [It || It <- Path, Of(It) =/= none]} of
            {[], [Other | _]} ->
                true = code:set_path([case It of Other -> New; _ -> It end || It <- Path, It =:= Other orelse Of(It) =:= none]);
            {[], []} -> true = code:add_patha(New);
            _ -> true
        end,
        Digest = fun(Module) -> case code:is_loaded(Module) of false -> none; _ -> Module:module_info(md5) end end,
        Loaded = [begin
            _ = code:soft_purge(Module) orelse code:purge(Module),
            {code:load_abs(filename:rootname(File)), Module}
        end || File <- filelib:wildcard(filename:join(New, "*.beam")),
            {ok, {Module, Md5}} <- [beam_lib:md5(File)], Digest(Module) =/= Md5],
        case [Module || {{error, _}, Module} <- Loaded] of
            [] -> {ok, length(Loaded)};
            [Module | _] -> {not_loaded, atom_to_binary(Module)}
        end
end.
